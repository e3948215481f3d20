//! Names that controllers make.

/// No vowels, so that no words come out; no look-alikes (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five characters from five random bytes.
#[must_use]
pub fn suffix(random: [u8; 5]) -> String {
    random.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

/// `pod-template-hash`: FNV-1a of the template, with each decimal digit put into the alphabet, so
/// that equal templates have equal hashes and the text is safe in a name.
#[must_use]
pub fn template_hash(template: &[u8]) -> String {
    let hash = template
        .iter()
        .fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_five_characters_of_the_alphabet() {
        assert_eq!(suffix([0, 1, 26, 27, 255]), "bc9bq");
    }

    #[test]
    fn a_template_has_one_hash_and_another_template_another() {
        assert_eq!(template_hash(b"a"), template_hash(b"a"));
        assert_ne!(template_hash(b"a"), template_hash(b"b"));
        assert!(template_hash(b"").bytes().all(|b| ALPHABET.contains(&b)));
    }
}
