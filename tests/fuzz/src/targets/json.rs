//! JSON: what is read comes back when it is written, and serde_json takes and refuses the same texts.

use oto_json::Json;

/// A text.
pub fn json(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let ours = oto_json::parse(text);
    if let Ok(tree) = &ours {
        assert_eq!(oto_json::parse(&oto_json::write(tree)).as_ref(), Ok(tree), "what was written");
    }
    // How deep and how large a text may be is each reader's own.
    let many = |bytes: &[u8], most| text.bytes().filter(|byte| bytes.contains(byte)).count() > most;
    if !many(b"[{", 100) && !many(b":", 1000) {
        assert_eq!(ours.as_ref().ok(), serde_json::from_str::<Json>(text).ok().as_ref(), "{text:?}");
    }
    ours.is_ok()
}
