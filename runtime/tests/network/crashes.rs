//! Many at once, and some of them killed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use runtime::network::{Config, Network, Protocol, Request};

use super::host::{Host, Namespace, port, uid};

/// Whether time goes slowly here, in an emulated machine (`scripts/test`): less is tried then.
fn is_slow() -> bool {
    std::env::var_os("PODSHIM_TEST_SLOW").is_some()
}

/// What a child process of these tests does: `<what> <state directory> <arguments…>`.
const CHILD: &str = "PODSHIM_TEST_NETWORK_CHILD";

/// Not a test: the program that the tests below run and kill.
#[test]
fn as_a_child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let config = Config { dir: words[1].into(), ..Config::default() };
    let network = Network::new(config).unwrap();
    match words[0] {
        "pods" => hold_pods(&network, words[2].parse().unwrap(), words[3].parse().unwrap()),
        "attach" => attach_for_ever(&network, words[2], words[3]),
        other => panic!("{other}"),
    }
}

/// Attaches pods and detaches some of them, then holds the rest until told to end.
fn hold_pods(network: &Network, first: u32, count: u32) {
    let mut pods = Vec::new();
    for number in first..first + count {
        let pod = Namespace::new();
        let uid = uid(number);
        let ports = [port(Protocol::Tcp, u16::try_from(number).unwrap())];
        let ports = &ports[..usize::from(number % 5 == 0)];
        let request = Request { uid: &uid, netns: pod.netns.as_fd(), ports };
        let attachment = network.attach(&request).unwrap();
        if number % 3 == 0 {
            network.detach(&uid).unwrap();
        } else {
            println!("address {}", attachment.address);
            pods.push(pod);
        }
    }
    println!("done");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Attaches and detaches one pod until killed.
fn attach_for_ever(network: &Network, uid: &str, netns: &str) {
    let netns = File::open(netns).unwrap();
    let ports = [port(Protocol::Tcp, 8080)];
    println!("done");
    loop {
        network.attach(&Request { uid, netns: netns.as_fd(), ports: &ports }).unwrap();
        network.detach(uid).unwrap();
    }
}

fn child(host: &Host, order: &str) -> Child {
    let dir = host.dir.path().join("podshim0");
    let (what, rest) = order.split_once(' ').unwrap();
    let order = format!("{what} {} {rest}", dir.display());
    host.run(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "network::crashes::as_a_child", "--nocapture"])
            .env(CHILD, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    })
}

/// The addresses that it names before it is done.
fn said_by(child: &mut Child) -> (Vec<String>, impl BufRead + use<>) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut addresses = Vec::new();
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "the child ended: {:?}", child.wait());
        // With one processor the name of the test stands before it, on the same line.
        if line.trim_end().ends_with("done") {
            return (addresses, out);
        }
        if let Some((_, address)) = line.trim().split_once("address ") {
            addresses.push(address.to_owned());
        }
    }
}

#[test]
fn eight_processes_never_give_one_address_twice() {
    let host = Host::new();
    let mut children: Vec<Child> =
        (0..8).map(|n| child(&host, &format!("pods {} 12", 1000 + n * 100))).collect();
    let mut seen = BTreeSet::new();
    let mut outs = Vec::new();
    for child in &mut children {
        let (addresses, out) = said_by(child);
        outs.push(out);
        assert_eq!(addresses.len(), 8);
        for address in addresses {
            assert!(seen.insert(address.clone()), "{address} was given twice");
        }
    }
    assert_eq!(host.records("addresses").len(), 64);
    assert_eq!(host.elements(), host.records("ports").len());
    for child in &mut children {
        writeln!(child.stdin.take().unwrap()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    // Their namespaces died with them; the kernel takes its time, and prune believes only the kernel.
    let began = Instant::now();
    while !host.records("addresses").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", host.links());
        host.prune();
        sleep(Duration::from_millis(20));
    }
    assert_eq!((host.elements(), host.records("pods").len()), (0, 0));
    host.remove_all().unwrap();
    assert_eq!(host.links(), ["lo"]);
}

#[test]
fn whoever_is_killed_in_the_middle_leaves_nothing_that_the_next_does_not_find() {
    let host = Host::new();
    let pod = Namespace::new();
    pod.serve("pod", 80);
    let netns = format!("/proc/{}/task/{}/ns/net", std::process::id(), pod.tid);
    // How long one round takes here, to spread the kills over it.
    let began = Instant::now();
    host.attach(&pod, &uid(1), &[port(Protocol::Tcp, 8080)]).unwrap();
    host.detach(&uid(1));
    let round = began.elapsed();
    for moment in 0..if is_slow() { 16 } else { 40 } {
        if moment % 8 == 0 {
            // From nothing: the network itself is half made.
            host.remove_all().unwrap();
        }
        let mut child = child(&host, &format!("attach {} {netns}", uid(1)));
        let (_, _out) = said_by(&mut child);
        sleep(round * moment / 20);
        child.kill().unwrap();
        child.wait().unwrap();
        match moment % 3 {
            // The pod is tried again.
            0 => {
                let again = host.attach(&pod, &uid(1), &[port(Protocol::Tcp, 8080)]).unwrap();
                assert_eq!(host.records("addresses"), [again.address.to_string()]);
                assert_eq!(host.ask([127, 0, 0, 1], 8080), "pod 10.213.0.1");
                host.detach(&uid(1));
            }
            // It is given up.
            1 => host.detach(&uid(1)),
            // It went without a word, and another comes.
            _ => {
                let link = runtime::network::names::pod_link(&uid(1));
                if host.links().contains(&link) {
                    host.ip(&format!("link del {link}"));
                }
                host.prune();
            }
        }
        assert_eq!(host.records("addresses"), [""; 0], "moment {moment}");
        assert_eq!(host.records("ports"), [""; 0], "moment {moment}");
        assert_eq!(host.records("pods"), [""; 0], "moment {moment}");
        assert!(host.links().iter().all(|l| l == "lo" || l == "podshim0"), "{:?}", host.links());
        assert_eq!(pod.links(), ["lo"]);
        if host.links().len() > 1 && host.sh("nft list tables").contains("podshim") {
            assert_eq!(host.elements(), 0, "moment {moment}");
        }
    }
    host.remove_all().unwrap();
    assert_eq!((host.links(), host.forwarding().as_str()), (vec!["lo".to_owned()], "0"));
    assert_eq!(host.sh("nft list ruleset"), "");
}

/// Prints, and asserts nothing but success: machines differ.
#[test]
fn many_pods_one_by_one_and_side_by_side() {
    let host = Host::new();
    let (_first, _) = host.pod(&uid(0), &[]);
    let count: u32 = if is_slow() { 10 } else { 50 };
    let pods: Vec<Namespace> = (0..count).map(|_| Namespace::new()).collect();
    let mut times = Vec::new();
    for (number, pod) in (1..).zip(&pods) {
        let began = Instant::now();
        host.attach(pod, &uid(number), &[]).unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("attach, one by one: least {least:?}, median {median:?}, most {most:?}");
    let began = Instant::now();
    for number in 1..=count {
        host.detach(&uid(number));
    }
    println!("detach, one by one: mean {:?}", began.elapsed() / count);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (number, pod) in (1..).zip(&pods) {
            let host = &host;
            scope.spawn(move || {
                let network = host.network.clone();
                let (uid, netns) = (uid(number), pod.netns.try_clone().unwrap());
                let home = host.netns.try_clone().unwrap();
                nix::sched::setns(home, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                network.attach(&Request { uid: &uid, netns: netns.as_fd(), ports: &[] }).unwrap();
            });
        }
    });
    println!("attach, {count} side by side: {:?} in all", began.elapsed());
    assert_eq!(host.records("addresses").len(), pods.len() + 1);
    let ports = |number: u16| [port(Protocol::Tcp, 2000 + number)];
    let mut times = Vec::new();
    for number in 1..=if is_slow() { 5 } else { 20 } {
        let pod = Namespace::new();
        let began = Instant::now();
        host.attach(&pod, &uid(100 + u32::from(number)), &ports(number)).unwrap();
        times.push(began.elapsed());
        host.detach(&uid(100 + u32::from(number)));
    }
    times.sort();
    println!("attach with a hostPort: median {:?}", times[times.len() / 2]);
}
