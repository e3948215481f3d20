//! Brings an image's layers into the store, some at a time.
//!
//! Each worker takes the next layer, fetches it, unpacks it and takes another: while one is unpacked
//! the next is on its way. The first failure ends all; what the others have fetched stays for the
//! next pull.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::blob::Fetch;
use super::{Progress, PullError, Source};
use crate::image::digest::Digest;
use crate::image::document::Descriptor;
use crate::image::layer;
use crate::image::store::Store;

/// Layers under way at the same time; docker's number.
const WORKERS: usize = 3;

/// A layer: where the registry has it, and what it is when it is unpacked.
pub(super) type Layer<'a> = (&'a Descriptor, &'a Digest);

/// Fetches and unpacks all of `layers`.
pub(super) fn bring(
    store: &Store,
    source: &Source<'_>,
    layers: &[Layer<'_>],
    progress: &mut dyn FnMut(Progress),
) -> Result<(), PullError> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, steps) = channel();
    let worker = |sender: Sender<Progress>| {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Who asked is gone only when the whole pull is.
            let mut tell = |step| drop(sender.send(step));
            if let Err(error) = one(store, source, *layer, &stop, &mut tell) {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let worker = &worker;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(layers.len()))
            .map(|_| {
                let sender = sender.clone();
                scope.spawn(move || worker(sender))
            })
            .collect();
        drop(sender);
        steps.iter().for_each(progress);
        let mut result = Ok(());
        for worker in workers {
            match worker.join() {
                Ok(Ok(())) => {}
                // Those that were stopped say so; why is what the first one says.
                Ok(Err(PullError::Stopped)) => {}
                Ok(Err(error)) => result = Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

fn one(
    store: &Store,
    source: &Source<'_>,
    (descriptor, diff_id): Layer<'_>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), PullError> {
    let digest = descriptor.digest.to_string();
    let mut waiting = || tell(Progress::Waiting { digest: digest.clone() });
    let _lock = store.lock_layer(diff_id, &mut waiting)?;
    if store.has_layer(diff_id) {
        return Ok(());
    }
    let fetch = Fetch { source, descriptor, what: "a layer", stop, tell };
    let mut blob = fetch.run(store)?;
    let written = |e| PullError::Store(store.write_error(e));
    let summary = layer::add(store, diff_id, blob.read().map_err(written)?).map_err(|error| {
        PullError::Layer {
            digest: digest.clone(),
            image: source.image.clone(),
            source: Box::new(error),
        }
    })?;
    blob.remove().map_err(written)?;
    if summary.devices_left_out > 0 {
        let devices = summary.devices_left_out;
        tell(Progress::LeftOut { digest: digest.clone(), devices });
    }
    tell(Progress::Unpacked { digest });
    Ok(())
}
