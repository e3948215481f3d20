//! Which program is run, with which arguments, in which directory.
//!
//! Pure text: whether the program exists is found out by executing it.

use k8s_openapi::api::core::v1::Container;

use crate::env::Env;
use crate::image_config::ImageConfig;

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// Neither the spec nor the image says what to run.
    #[error(
        "no command specified: set command in the container's spec, or use an image with an \
         entrypoint"
    )]
    NoCommand,
    /// An argument with a NUL byte, which no process can be given.
    #[error("argument {position} of the command has a NUL byte")]
    Argument {
        /// Which: 0 is the program.
        position: usize,
    },
    /// A working directory that no process can have.
    #[error("working directory {text:?} has a NUL byte")]
    WorkingDir {
        /// The directory.
        text: String,
    },
}

/// The program and its arguments.
///
/// A `command` replaces the image's entrypoint *and* its arguments; `args` replaces the arguments
/// only. An empty list is none. References are replaced from the spec's variables, and only in what
/// the spec says.
///
/// # Errors
/// If there is nothing to run, or an argument that cannot be passed.
pub fn argv(
    container: &Container,
    image: &ImageConfig,
    env: &Env,
) -> Result<Vec<String>, ProcessError> {
    let expanded = |list: &Option<Vec<String>>| -> Option<Vec<String>> {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        Some(list.iter().map(|text| env.expand(text)).collect())
    };
    let args = expanded(&container.args);
    let argv: Vec<String> = match expanded(&container.command) {
        Some(command) => command.into_iter().chain(args.unwrap_or_default()).collect(),
        None => {
            let args = args.unwrap_or_else(|| image.cmd.clone());
            image.entrypoint.iter().cloned().chain(args).collect()
        }
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(ProcessError::NoCommand);
    }
    match argv.iter().position(|argument| argument.contains('\0')) {
        Some(position) => Err(ProcessError::Argument { position }),
        None => Ok(argv),
    }
}

/// The working directory, absolute: the spec's, else the image's, else `/`.
///
/// # Errors
/// If it has a NUL byte.
pub fn cwd(container: &Container, image: &ImageConfig) -> Result<String, ProcessError> {
    let spec = container.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let dir = spec.unwrap_or(&image.working_dir);
    if dir.contains('\0') {
        return Err(ProcessError::WorkingDir { text: dir.into() });
    }
    Ok(if dir.starts_with('/') { dir.into() } else { format!("/{dir}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture;

    fn container(fields: &str) -> Container {
        fixture::yaml(&format!("{{name: main, {fields}}}"))
    }

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        ImageConfig { entrypoint: texts(entrypoint), cmd: texts(cmd), ..ImageConfig::default() }
    }

    #[test]
    fn the_four_cases_of_kubernetes_documentation() {
        let image = image(&["/ep"], &["cmd"]);
        for (spec, expected) in [
            ("", "/ep cmd"),
            ("command: [c]", "c"),
            ("args: [a]", "/ep a"),
            ("command: [c], args: [a, b]", "c a b"),
            ("command: [], args: []", "/ep cmd"),
            ("command: [c], args: []", "c"),
        ] {
            let argv = argv(&container(spec), &image, &Env::default()).expect(spec);
            assert_eq!(argv.join(" "), expected, "{spec}");
        }
    }

    #[test]
    fn the_images_arguments_alone_are_a_command() {
        let argv = argv(&container(""), &image(&[], &["sh", "-c", "x"]), &Env::default());
        assert_eq!(argv.map(|argv| argv.join(" ")).as_deref(), Ok("sh -c x"));
    }

    #[test]
    fn only_the_specs_words_are_expanded() {
        let mut env = Env::default();
        env.set("A", "1 2");
        let image = image(&["$(A)"], &[]);
        let argv = argv(&container("args: [x$(A), $(B), $$(A)]"), &image, &env);
        let expected = ["$(A)", "x1 2", "$(B)", "$(A)"];
        assert_eq!(argv, Ok(expected.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn nothing_to_run_is_an_error_that_says_what_to_do() {
        let none = Env::default();
        let error = argv(&container(""), &image(&[], &[]), &none).expect_err("nothing to run");
        assert!(error.to_string().starts_with("no command specified"), "{error}");
        assert_eq!(
            argv(&container("command: ['']"), &image(&["/ep"], &[]), &none),
            Err(ProcessError::NoCommand)
        );
        assert_eq!(
            argv(&container("command: [a, \"b\\0\"]"), &image(&[], &[]), &none),
            Err(ProcessError::Argument { position: 1 })
        );
    }

    #[test]
    fn the_working_directory_is_the_specs_then_the_images_then_the_root() {
        for (spec, image, expected) in [
            ("", "", "/"),
            ("", "/srv", "/srv"),
            ("", "srv", "/srv"),
            ("workingDir: /w", "/srv", "/w"),
            ("workingDir: ''", "/srv", "/srv"),
        ] {
            let image = ImageConfig { working_dir: image.into(), ..ImageConfig::default() };
            assert_eq!(cwd(&container(spec), &image).as_deref(), Ok(expected), "{spec} {image:?}");
        }
        assert!(cwd(&container("workingDir: \"/a\\0\""), &ImageConfig::default()).is_err());
    }
}
