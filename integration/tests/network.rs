//! The pods' network, in a network namespace that stands for the host's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use integration::{Instance, run};
use nix::sys::signal::Signal;
use serde_json::Value;

fn web(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: side
    image: alpine:latest
    restartPolicy: Always
    env: [{{name: IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}]
    command: [sh, -c, 'echo address $IP; grep {name} /etc/hosts; exec nc -ll -p 81 -e echo from side of {name}']
    ports: [{{containerPort: 81, hostPort: {}}}]
  containers:
  - name: main
    image: alpine:latest
    command: [nc, -ll, -p, '80', -e, echo, from {name}]
    ports: [{{containerPort: 80, hostPort: {port}}}]
",
        port + 1
    )
}

fn ask(address: &str) -> String {
    let deadline = std::time::Instant::now() + integration::PATIENCE;
    loop {
        // The program may not listen yet.
        if let Ok(mut stream) = TcpStream::connect(address) {
            let mut text = String::new();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                return text;
            }
        }
        assert!(std::time::Instant::now() < deadline, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn address(pod: &Value) -> String {
    pod["status"]["podIP"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn pods_have_addresses_reach_each_other_and_answer_at_the_hosts_ports() {
    let podshim = Instance::new();
    let before = run("ip -o link; nft list ruleset");
    let forward_before = run("cat /proc/sys/net/ipv4/ip_forward");
    let running = podshim.start(&format!("{}---\n{}", web("one", 8080), web("two", 9090)));
    let pods = podshim.until_pods("two pods run", |pods| {
        pods.len() == 2 && pods.iter().all(|p| p["status"]["phase"] == "Running")
    });
    let (one, two) = (address(&pods[0]), address(&pods[1]));
    assert!(one.starts_with("10.") && two.starts_with("10.") && one != two, "{one} {two}");
    assert_eq!(ask(&format!("{one}:80")), "from one\n");
    assert_eq!(ask("127.0.0.1:8080"), "from one\n");
    assert_eq!(ask("127.0.0.1:8081"), "from side of one\n");
    assert_eq!(ask("127.0.0.1:9090"), "from two\n");
    let from = |pod: &str, target: &str| {
        let said = podshim.podshim(&["exec", pod, "--", "nc", "-w", "10", target, "80"]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    assert_eq!(from("one", &two), "from two\n");
    assert_eq!(from("two", &one), "from one\n");
    let logs = podshim.podshim(&["logs", "one", "-c", "side"]).out;
    assert!(logs.contains(&format!("address {one}\n{one}\tone\n")), "{logs}");

    // A port that is taken is told with who has it, and the pod waits for it to be free.
    let third = podshim.run(
        "apiVersion: v1
kind: Pod
metadata: {name: third}
spec:
  activeDeadlineSeconds: 2
  restartPolicy: Never
  containers:
  - {name: main, image: alpine:latest, command: ['true'], ports: [{containerPort: 80, hostPort: 8080}]}
",
    );
    assert_ne!(third.code, 0);
    assert!(third.err.contains("8080"), "{}", third.err);

    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().0, 130);
    podshim.nothing_is_left();
    assert!(TcpStream::connect("127.0.0.1:8080").is_err(), "the port is free again");
    assert_eq!(podshim.podshim(&["prune", "--all"]).code, 0);
    assert_eq!(run("ip -o link; nft list ruleset"), before);
    assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), forward_before);
    assert!(!podshim.network().exists(), "its records are gone");
}

#[test]
fn a_pod_reaches_what_the_host_reaches_and_has_no_network_if_it_is_to_have_none() {
    let podshim = Instance::new();
    // Something behind the host that knows nothing of pods: answers go to the host's address.
    run(
        "ip link add out type veth peer name beyond && ip link set beyond up && ip addr add 192.0.2.1/24 dev out && ip link set out up",
    );
    let listener = TcpListener::bind("192.0.2.1:7000").unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        peer.ip().to_string()
    });
    let said = podshim.run(
        "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'nc -w 10 192.0.2.1 7000; ip -o link | wc -l']}
",
    );
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("main | hello\nmain | 2\n"), "{}", said.out);
    assert!(peer.join().unwrap().starts_with("10."));

    let path = podshim.manifest(
        "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'ip -o link | wc -l']}
",
    );
    let said = podshim.podshim(&["run", "--pull=never", "--network=none", &path]);
    assert_eq!((said.code, said.out.as_str()), (0, "main | 1\n"), "{}", said.err);
}

#[test]
fn a_pod_whose_processes_are_all_killed_leaves_its_address_to_others() {
    let podshim = Instance::new();
    let running = podshim.start(&web("one", 8080));
    podshim.until("running", |p| p["status"]["phase"] == "Running");
    podshim.kill_podshim(running);
    assert_eq!(podshim.podshim(&["prune"]).code, 0);
    podshim.nothing_is_left();
    assert!(TcpStream::connect("127.0.0.1:8080").is_err(), "the port is free again");
    let running = podshim.start(&web("two", 8080));
    assert_eq!(ask("127.0.0.1:8080"), "from two\n");
    running.signal(Signal::SIGINT);
    running.wait();
}

#[test]
fn the_full_example_runs_as_it_is_written() {
    let podshim = Instance::new();
    let example = integration::sources().join("examples/full.yaml");
    let running = podshim.start_file(example.to_str().unwrap());
    podshim.until("running", |p| p["status"]["phase"] == "Running");
    assert_eq!(ask("127.0.0.1:18080"), "welcome to the shop\n");
    running.until_printed("has 2 goods, a token of 17 letters and the colour green");
    running.until_printed("logshipper | sold");
    running.signal(Signal::SIGINT);
    let (code, text) = running.wait();
    assert_eq!(code, 130, "{text}");
    // Each of them obeys: nobody has to be killed.
    assert!(!text.contains("SIGKILL"), "{text}");
}
