//! Users and groups: the table of `USER` strings, the merge, hostile files.

use proptest::prelude::*;

use super::*;
use crate::oci::fixture;

const PASSWD: &str = "\
# a comment
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:an app:/home/app:/bin/sh
0x0:x:4242:4242::/:/bin/sh
nohome:x:1002:1002::relative:/bin/sh
short:x:1003:1003
evil:x:-1:0::/:/bin/sh
worse:x:4294967296:0::/:/bin/sh
gidless:x:1004:x::/:/bin/sh
4294967296:x:0:0::/root:/bin/sh
1005:x:0:0::/root:/bin/sh
-1:x:0:0::/root:/bin/sh
garbage
";

const GROUP: &str = "\
root:x:0:root
app:x:1001:
wheel:x:10:root,app
audio:x:29:app,other
nobodys:x:99
bad:x:4294967296:
1006:x:0:
";

const FILES: Files<'static> = Files { passwd: Some(PASSWD), group: Some(GROUP) };

fn image_user(text: &str) -> Result<Identity, UserError> {
    resolve(&fixture::pod("spec: {}"), &Container::default(), text, FILES)
}

fn ids(identity: Result<Identity, UserError>) -> Option<(u32, u32)> {
    identity.ok().map(|identity| (identity.uid, identity.gid))
}

#[test]
fn forty_user_strings() {
    let table: [(&str, Option<(u32, u32)>); 43] = [
        ("", Some((0, 0))),
        ("0", Some((0, 0))),
        ("00", Some((0, 0))),
        ("root", Some((0, 0))),
        ("root:root", Some((0, 0))),
        ("1000", Some((1000, 1001))),
        ("01000", Some((1000, 1001))),
        ("app", Some((1000, 1001))),
        ("app:wheel", Some((1000, 10))),
        ("app:10", Some((1000, 10))),
        ("1000:wheel", Some((1000, 10))),
        ("1000:1000", Some((1000, 1000))),
        ("7", Some((7, 0))),
        ("7:8", Some((7, 8))),
        ("short", Some((1003, 1003))),
        ("nohome", Some((1002, 1002))),
        // A name that only looks a little like a number.
        ("0x0", Some((4242, 4242))),
        ("2147483647", Some((2_147_483_647, 0))),
        // Numbers are never names, whatever the image's passwd says.
        ("1005", Some((1005, 0))),
        ("1000:1006", Some((1000, 1006))),
        ("2147483648", None),
        ("4294967295", None),
        ("4294967296", None),
        ("18446744073709551616", None),
        ("-1", None),
        ("+1000", None),
        ("-0", None),
        ("root:999999999999", None),
        ("root:-1", None),
        ("0:4294967296", None),
        ("\u{661}", None),
        ("nobody", None),
        ("app:nogroup", None),
        ("app:bad", None),
        ("evil", None),
        ("worse", None),
        ("gidless", None),
        (":", None),
        (":0", None),
        ("app:", None),
        ("app:wheel:x", None),
        (" 0", None),
        ("root\n", None),
    ];
    for (text, expected) in table {
        assert_eq!(ids(image_user(text)), expected, "{text:?}: {:?}", image_user(text));
    }
}

#[test]
fn errors_say_what_to_do() {
    let text = |user: &str| image_user(user).expect_err(user).to_string();
    assert_eq!(
        text("nobody"),
        "no user \"nobody\" in the image's /etc/passwd: set runAsUser to a number in the \
         container's securityContext"
    );
    assert_eq!(text("4294967296"), "user id 4294967296 is not between 0 and 2147483647");
    assert_eq!(text("a b"), "the image's user \"a b\" is not of the form user or user:group");
    assert_eq!(text("evil"), "the entry of \"evil\" in the image's /etc/passwd has no valid id");
}

#[test]
fn groups_and_home_come_from_the_images_files() {
    for user in ["app", "1000"] {
        let identity = image_user(user).expect(user);
        assert_eq!(identity.additional_gids, [1001, 10, 29], "{user}");
        assert_eq!(identity.home.as_deref(), Some("/home/app"), "{user}");
    }
    for user in ["nohome", "short", "7"] {
        assert_eq!(image_user(user).expect(user).home, None, "{user}");
    }
}

/// The identity with these security contexts and an image of this user.
fn merged(pod: &str, container: &str, user: &str) -> Result<Identity, UserError> {
    let pod = fixture::pod(&format!(
        "metadata: {{name: p, namespace: ns, uid: u}}\nspec: {{securityContext: {{{pod}}}}}"
    ));
    let container: Container =
        fixture::yaml(&format!("{{name: main, securityContext: {{{container}}}}}"));
    resolve(&pod, &container, user, FILES)
}

#[test]
fn the_containers_context_wins_over_the_pods_and_both_over_the_image() {
    for (pod, container, user, expected) in [
        ("runAsUser: 5", "", "app", (5, 0)),
        ("runAsUser: 5", "runAsUser: 6", "app", (6, 0)),
        ("", "runAsUser: 1000", "root", (1000, 1001)),
        // A user from the spec does not go with a group from the image.
        ("", "runAsUser: 1000", "root:wheel", (1000, 1001)),
        ("runAsGroup: 7", "", "app", (1000, 7)),
        ("runAsGroup: 7", "runAsGroup: 8", "app:wheel", (1000, 8)),
        // The image's user is not even read.
        ("runAsUser: 5", "", "4294967296", (5, 0)),
    ] {
        let identity = merged(pod, container, user);
        assert_eq!(ids(identity), Some(expected), "{pod} {container} {user}");
    }
}

#[test]
fn supplementary_groups_are_merged_in_order_and_once() {
    let gids = |pod: &str| merged(pod, "", "app").expect(pod).additional_gids;
    assert_eq!(
        gids("supplementalGroups: [5, 10, 5], fsGroup: 2000"),
        [1001, 5, 10, 2000, 29],
        "primary, supplementalGroups, fsGroup, the image's"
    );
    assert_eq!(
        gids("supplementalGroups: [5], supplementalGroupsPolicy: Strict"),
        [1001, 5],
        "the image's groups do not count"
    );
}

#[test]
fn numbers_of_the_spec_are_checked_too() {
    for (pod, container) in [
        ("runAsUser: -1", ""),
        ("", "runAsUser: 4294967296"),
        ("runAsGroup: 2147483648", ""),
        ("supplementalGroups: [-1]", ""),
        ("fsGroup: 4294967296", ""),
    ] {
        let refused = merged(pod, container, "");
        assert!(matches!(refused, Err(UserError::Number { .. })), "{pod} {container}: {refused:?}");
    }
}

#[test]
fn run_as_non_root_speaks_as_the_kubelet_does() {
    let non_root = "runAsNonRoot: true";
    for (container, user, expected) in [
        (
            "runAsUser: 0",
            "app",
            "container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: main)",
        ),
        (
            "",
            "",
            "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: \
             main)",
        ),
        (
            "",
            "0:1000",
            "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: \
             main)",
        ),
        (
            "",
            "app",
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user \
             is non-root (pod: \"p_ns(u)\", container: main)",
        ),
    ] {
        let error = merged(non_root, container, user).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(ids(merged(non_root, "", "1000")), Some((1000, 1001)));
    assert_eq!(ids(merged(non_root, "runAsUser: 9", "root")), Some((9, 0)));
    assert_eq!(ids(merged(non_root, "runAsNonRoot: false", "root")), Some((0, 0)));
}

#[test]
fn huge_files_and_huge_memberships_are_refused() {
    let huge = "a".repeat(MAX_FILE_BYTES + 1);
    let files = Files { passwd: Some(&huge), group: None };
    let pod = fixture::pod("spec: {}");
    let refused = resolve(&pod, &Container::default(), "0", files);
    assert_eq!(refused, Err(UserError::TooLarge { file: "/etc/passwd" }));

    let group: String = (1..=70_000).map(|gid| format!("g:x:{gid}:app\n")).collect();
    let files = Files { passwd: Some(PASSWD), group: Some(&group) };
    let refused = resolve(&pod, &Container::default(), "app", files);
    assert_eq!(refused, Err(UserError::TooManyGroups));
}

proptest! {
    /// Whatever an image says, an id is what it wrote or there is none.
    #[test]
    fn a_number_is_itself_or_refused(number in any::<u64>(), group in any::<u64>()) {
        let in_range = |n: u64| n <= 2_147_483_647;
        let identity = ids(image_user(&format!("{number}:{group}")));
        if in_range(number) && in_range(group) && number != 1004 {
            prop_assert_eq!(identity, Some((number as u32, group as u32)));
        } else {
            prop_assert_eq!(identity, None);
        }
    }

    #[test]
    fn no_text_and_no_file_makes_it_panic(user in ".{0,12}", passwd in "(.|\n){0,80}") {
        let files = Files { passwd: Some(&passwd), group: Some(&passwd) };
        let pod = fixture::pod("spec: {}");
        if let Ok(identity) = resolve(&pod, &Container::default(), &user, files) {
            prop_assert!(identity.uid <= 2_147_483_647 && identity.gid <= 2_147_483_647);
            prop_assert_eq!(identity.additional_gids.first(), Some(&identity.gid));
        }
    }
}
