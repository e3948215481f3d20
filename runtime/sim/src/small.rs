//! Small worlds, all of them: every order in which things can happen to a tiny pod, up to a depth.
//!
//! A world forks at each step: each of the things that are under way may end next, well or badly; each
//! process may exit with 0 or with 1; time may pass until the heart wants to look again; a user may
//! delete, kill or restart; podshim may die. From each leaf on the world is fair and the pod must come to
//! its end.

use plan::{Kind, Pod};

use crate::book::{Broken, Stage};
use crate::choice::{Fate, How};
use crate::tally::Tally;
use crate::world::{Event, World};

/// What a search has seen.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// Worlds, one a step.
    pub worlds: u64,
    /// Ways to the end.
    pub ends: u64,
    /// What was counted on them.
    pub tally: Tally,
}

/// One way on.
#[derive(Clone, Debug)]
enum Way {
    Event(usize, Event),
    Own(Event),
    Wake,
    Die,
}

/// Tries every way of `depth` steps in the life of `pod`, from where it is after `calm` steps in which
/// all went well. (From its first moment on, a search would end before anything runs.) With `changes`
/// users also change definitions, and stop and start sidecars.
///
/// # Errors
/// The first promise that is broken, with the way to it.
pub fn search(pod: &Pod, calm: u32, depth: u32, changes: bool) -> Result<Searched, Broken> {
    let mut world = World::new(pod, 0, Fate::of_script(&[]));
    let mut searched = Searched::default();
    world.accept()?;
    for _ in 0..calm {
        match world.take_next() {
            Some(event) => world.happens(&event)?,
            None => {
                if let Some(wake) = world.wake_at {
                    world.wake(wake)?;
                }
                world.settle()?;
            }
        }
    }
    deeper(&world, depth, changes, &mut Vec::new(), &mut searched)?;
    Ok(searched)
}

fn deeper(
    world: &World<'_>,
    depth: u32,
    changes: bool,
    path: &mut Vec<Way>,
    searched: &mut Searched,
) -> Result<(), Broken> {
    searched.worlds += 1;
    let ways =
        if depth == 0 || world.state().is_over() { Vec::new() } else { ways(world, changes) };
    if ways.is_empty() {
        searched.ends += 1;
        let mut last = world.clone();
        crate::life::bring_to_end(&mut last).map_err(|broken| told(&broken, path))?;
        searched.tally.facts += last.tally.facts;
        searched.tally.checks += last.book.checks.get();
    }
    for way in ways {
        let mut next = world.clone();
        path.push(way.clone());
        go(&mut next, way).map_err(|broken| told(&broken, path))?;
        deeper(&next, depth - 1, changes, path, searched)?;
        path.pop();
    }
    Ok(())
}

fn told(broken: &Broken, path: &[Way]) -> Broken {
    if broken.0.contains("\n  ") {
        return broken.clone();
    }
    let path: String = path.iter().map(|way| format!("\n  {way:?}")).collect();
    Broken(format!("{}; on the way{path}", broken.0))
}

fn go(world: &mut World<'_>, way: Way) -> Result<(), Broken> {
    match way {
        Way::Event(index, event) => {
            world.queue.remove(index);
            world.happens(&event)
        }
        Way::Own(event) => world.happens(&event),
        Way::Wake => {
            if let Some(wake) = world.wake_at {
                world.wake(wake)?;
            }
            world.settle()
        }
        Way::Die => world.die(),
    }
}

/// What can happen next.
fn ways(world: &World<'_>, changes: bool) -> Vec<Way> {
    let mut ways = Vec::new();
    for (index, due) in world.queue.iter().enumerate() {
        for event in outcomes(&due.event) {
            ways.push(Way::Event(index, event));
        }
    }
    for (c, own) in world.book.own.iter().enumerate() {
        let runs = own.bodies.iter().filter(|b| b.stage == Stage::Runs);
        for inc in runs.map(|b| b.inc) {
            for code in [0, 1] {
                ways.push(Way::Own(Event::Ended { c, inc, how: How::Exits { code } }));
            }
            ways.push(Way::Own(Event::User(How::Restart { c })));
        }
        if changes && world.book.ending.is_none() && world.book.deleted.is_none() {
            ways.push(Way::Own(Event::User(How::Change { c, seed: 1 })));
            match (world.pod.containers[c].kind, own.down) {
                (Kind::Sidecar, false) => ways.push(Way::Own(Event::User(How::Stop { c }))),
                (Kind::Sidecar, true) => ways.push(Way::Own(Event::User(How::StartAgain { c }))),
                _ => {}
            }
        }
    }
    if world.wake_at.is_some() {
        ways.push(Way::Wake);
    }
    if world.book.ending.is_none() {
        ways.push(Way::Own(Event::User(How::Delete { grace_s: None })));
        ways.push(Way::Own(Event::User(How::KillAll)));
    } else {
        ways.push(Way::Own(Event::User(How::Delete { grace_s: Some(1) })));
    }
    ways.push(Way::Die);
    ways
}

/// How something that is under way may come out.
fn outcomes(event: &Event) -> Vec<Event> {
    let with = |make: &dyn Fn(How) -> Event| vec![make(How::Succeeds), make(How::Fails)];
    match event {
        Event::Sandbox(_) => with(&Event::Sandbox),
        Event::Image { c, .. } => with(&|how| Event::Image { c: *c, how }),
        Event::Created { c, inc, .. } => with(&|how| Event::Created { c: *c, inc: *inc, how }),
        Event::Probed { c, inc, kind, .. } => [How::Succeeds, How::Fails, How::Errs]
            .map(|how| Event::Probed { c: *c, inc: *inc, kind: *kind, how })
            .to_vec(),
        Event::Hooked { c, inc, hook, .. } => {
            with(&|how| Event::Hooked { c: *c, inc: *inc, hook: *hook, how })
        }
        Event::Started { .. }
        | Event::Ended { .. }
        | Event::Notified { .. }
        | Event::User(_)
        | Event::Again(_) => vec![event.clone()],
    }
}
