//! The files that a pod's containers share, and emptyDir volumes.

use super::*;
use crate::oci::fixture::{host, pod};

fn spec_of(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap()
}

#[test]
fn the_host_name_is_the_pods_cut_to_what_a_kernel_takes() {
    let long = format!("metadata: {{name: {}.b}}\nspec: {{}}", "a".repeat(62));
    assert_eq!(names(&pod(&long), &host()).unwrap().hostname, "a".repeat(62));
    let given = pod("metadata: {name: p}\nspec: {hostname: web}");
    assert_eq!(names(&given, &host()).unwrap().hostname_file(), "web\n");
    let shared = pod("metadata: {name: p}\nspec: {hostNetwork: true}");
    assert_eq!(names(&shared, &host()).unwrap().hostname, "node-1");
}

#[test]
fn the_hosts_file_is_kubernetes_own_or_the_hosts() {
    let own = pod("metadata: {name: p}\nspec: {}");
    let named = names(&own, &host()).unwrap();
    let text = hosts_file(&spec_of(&own), &named, &["192.0.2.9".into()], "ignored").unwrap();
    assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
    assert!(text.ends_with("192.0.2.9\tp\n"), "{text}");
    let shared = pod("metadata: {name: p}\nspec: {hostNetwork: true}");
    let named = names(&shared, &host()).unwrap();
    let text = hosts_file(&spec_of(&shared), &named, &[], "10.0.0.1\tother\n").unwrap();
    assert!(text.contains("(host network)") && text.contains("10.0.0.1\tother\n"), "{text}");
}

#[test]
fn a_memory_volume_is_no_larger_than_its_limit_the_pods_or_the_host() {
    let with = |volume: &str, limits: &str| {
        let text = format!(
            "metadata: {{name: p}}\nspec: {{volumes: [{{name: v, emptyDir: {volume}}}], \
             containers: [{{name: c, image: x, resources: {{limits: {limits}}}}}]}}"
        );
        empty_dirs(&spec_of(&pod(&text)), &host()).unwrap()[0].medium
    };
    assert_eq!(with("{}", "{}"), Medium::Disk);
    assert_eq!(with("{medium: Memory}", "{}"), Medium::Memory { size: 8 << 30 });
    assert_eq!(with("{medium: Memory}", "{memory: 64Mi}"), Medium::Memory { size: 64 << 20 });
    let both = with("{medium: Memory, sizeLimit: 1Mi}", "{memory: 64Mi}");
    assert_eq!(both, Medium::Memory { size: 1 << 20 });
}

#[test]
fn the_hosts_resolver_is_handed_on() {
    let plain = pod("metadata: {name: p}\nspec: {}");
    let text = "nameserver 192.0.2.53\nsearch example.org\n";
    assert_eq!(resolv_conf(&spec_of(&plain), text).unwrap().text, text);
}

#[test]
fn a_resolver_that_only_the_host_can_ask_is_passed_by() {
    let local = "nameserver 127.0.0.53\nsearch lan\n";
    let upstream = "nameserver 192.0.2.53\n";
    let of = |spec: &str, host: &str, upstream: Option<&str>| {
        let pod = pod(&format!("spec: {{{spec}}}"));
        let made = host_resolver(pod.spec.as_ref().expect("a spec"), host, upstream);
        (made.text, made.warnings.len())
    };
    let plain = |text: &str| (text.to_owned(), 0);
    assert_eq!(of("", local, Some(upstream)), plain(upstream));
    assert_eq!(of("", upstream, Some(local)), plain(upstream));
    assert_eq!(of("", "nameserver ::1%lo\nnameserver 192.0.2.9\n", None).1, 0);
    assert_eq!(of("hostNetwork: true", local, Some(upstream)), plain(local));
    assert_eq!(of("dnsPolicy: None", local, Some(upstream)), plain(local));
    assert_eq!(of("", local, None), (local.to_owned(), 1));
    assert_eq!(of("", local, Some("nameserver ::1\n")), (local.to_owned(), 1));
    assert_eq!(of("", "", None), (String::new(), 1));
}
