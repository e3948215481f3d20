//! `podshim set image`: other images for the containers of a pod that runs, or of a deployment.

use anyhow::Context;
use bundles::image::Reference;
use bundles::layout::Layout;
use serde_json::json;

use super::api::Api;
use super::apply::change;
use super::daemon::{Workload, kind_of};
use super::terminal::Output;
use super::{SetImageArgs, find_pod};
use crate::daemon::store::Kind;
use crate::pod::file::PodFile;

/// Gives containers of a pod or a deployment other images.
pub fn set_image(layout: &Layout, args: &SetImageArgs) -> anyhow::Result<i32> {
    let images = args.images.iter().map(|text| named_image(text));
    let images = images.collect::<anyhow::Result<Vec<(&str, &str)>>>()?;
    let name = match args.pod.split_once('/') {
        Some((word, name)) if kind_of(word) == Some(Kind::Deployment) => {
            return set_template_image(layout, args, name, &images);
        }
        Some((word, name)) if kind_of(word) == Some(Kind::Pod) => name,
        Some((word, _)) => {
            anyhow::bail!(
                "{word:?} is given no images: pods (NAME or pod/NAME) and deployments are"
            );
        }
        None => &args.pod,
    };
    let pod = find_pod(layout, &args.namespace, name)?;
    let mut definition = PodFile::read(&layout.pod(&pod.uid).spec())?.definition();
    let spec = definition.pod.spec.as_mut().context("the pod has no spec")?;
    for (wanted, image) in images {
        let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        let mut found = false;
        for container in all.filter(|container| wanted == "*" || container.name == wanted) {
            container.image = Some(image.to_owned());
            found = true;
        }
        if !found {
            anyhow::bail!("unable to find container named {wanted:?} in pod {name:?}");
        }
    }
    let mut output = Output::default();
    let code = change(layout, &pod, definition, &mut output)?;
    output.end()?;
    Ok(code)
}

/// `CONTAINER=IMAGE`.
fn named_image(text: &str) -> anyhow::Result<(&str, &str)> {
    let (name, image) = text
        .split_once('=')
        .with_context(|| format!("{text:?} is not CONTAINER=IMAGE, such as app=nginx:1.29"))?;
    Reference::parse(image).with_context(|| format!("{image:?} is not an image's name"))?;
    Ok((name, image))
}

/// Of a deployment's template, which is rolled out.
fn set_template_image(
    layout: &Layout,
    args: &SetImageArgs,
    name: &str,
    images: &[(&str, &str)],
) -> anyhow::Result<i32> {
    let workload = Workload {
        kind: Kind::Deployment,
        namespace: args.namespace.clone(),
        name: name.to_owned(),
    };
    workload.change(&Api::of(layout)?, |object| {
        let spec = &mut object["spec"]["template"]["spec"];
        for (wanted, image) in images {
            let mut found = false;
            for list in ["initContainers", "containers"] {
                for container in spec[list].as_array_mut().into_iter().flatten() {
                    if *wanted == "*" || container["name"] == *wanted {
                        container["image"] = json!(image);
                        found = true;
                    }
                }
            }
            if !found {
                anyhow::bail!("unable to find container named {wanted:?}");
            }
        }
        Ok(())
    })?;
    let mut output = Output::default();
    output.line(format_args!("deployment.apps/{name} image updated"));
    output.end()?;
    Ok(0)
}
