//! Images: "when a Pod's image cannot be pulled, Kubernetes will keep trying to pull the image, with
//! an increasing back-off delay", up to 300 s (Kubernetes, Images).
//!
//! All containers' images are looked for side by side from the pod's first moment, without waiting
//! for the sandbox. With a written `imagePullPolicy: Always` the registry is asked before each
//! creation. `ErrImageNeverPull` and `InvalidImageName` are tried on the same schedule, because an
//! image may be loaded meanwhile.

use crate::fact::{Action, Subject};
use crate::model::{Container, PullWhen};
use crate::plan::Draft;
use crate::rules::create;
use crate::state::Record;

/// Looks for the images of all containers that are to be created.
pub(crate) fn resolve(draft: &mut Draft) {
    for (c, container, record) in draft.containers() {
        if !create::is_due(draft, c) || is_usable(container, record) {
            continue;
        }
        let subject = Subject::Container(c);
        let image = &record.image;
        match (image.pulling, &image.failures.last, image.failures.retry_at()) {
            (Some(since), _, _) => {
                let reason = format!("image \"{}\" is being pulled", container.image);
                draft.wait(subject, reason, Some(since), None);
            }
            (None, Some(failure), Some(retry_at)) if retry_at > draft.now => {
                let reason =
                    format!("image pull back-off ({}): {}", failure.reason, failure.message);
                draft.wait(subject, reason, Some(failure.at), Some(retry_at));
            }
            _ => draft.act(Action::ResolveImage { c }),
        }
    }
}

/// Whether the container's next incarnation may be made from the image that is known.
pub(crate) fn is_usable(container: &Container, record: &Record) -> bool {
    let image = &record.image;
    image.id.is_some() && (container.pull == PullWhen::Once || image.fresh)
}
