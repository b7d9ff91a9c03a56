//! Short names for what a module and wasm-bindgen's script have in common. wasm-bindgen's names end with a hash of 16 digits, which no
//! compression shortens, once in the script and once in the module.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use walrus::ModuleConfig;

/// Shortens the names in `NAME.js`, `NAME_bg.wasm` and its declarations.
pub fn shorten(folder: &Path, name: &str) -> Result<()> {
    let script = folder.join(format!("{name}.js"));
    let text = fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let names = short_names(&text);
    fs::write(&script, renamed(&text, &names))?;
    let declarations = folder.join(format!("{name}_bg.wasm.d.ts"));
    if declarations.exists() {
        fs::write(&declarations, renamed(&fs::read_to_string(&declarations)?, &names))?;
    }
    let module = folder.join(format!("{name}_bg.wasm"));
    let mut config = ModuleConfig::new();
    config.generate_producers_section(false).generate_name_section(false);
    let mut wasm = config.parse(&fs::read(&module)?)?;
    let shared = wasm.imports.iter_mut().map(|import| &mut import.name);
    for name in shared.chain(wasm.exports.iter_mut().map(|export| &mut export.name)) {
        if let Some(short) = names.get(name) {
            name.clone_from(short);
        }
    }
    Ok(fs::write(module, wasm.emit_wasm())?)
}

/// The short name of each name with a hash. wasm-bindgen writes none that begins with a dollar sign.
fn short_names(script: &str) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for word in words(script).filter(|word| has_hash(word)) {
        let short = format!("${}", names.len());
        names.entry(word.to_string()).or_insert(short);
    }
    names
}

/// A script's words, and what stands between them.
fn words(script: &str) -> impl Iterator<Item = &str> {
    let kind = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let mut rest = script;
    std::iter::from_fn(move || {
        let first = kind(rest.chars().next()?);
        let end = rest.find(|c| kind(c) != first).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

fn has_hash(word: &str) -> bool {
    let hash = word.len().checked_sub(16).and_then(|start| word.get(start..));
    let is_hash = |hash: &str| hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let known = ["__wbg_", "__wbindgen_", "wasm_bindgen__"].iter().any(|begin| word.starts_with(begin));
    known && hash.is_some_and(is_hash)
}

fn renamed(script: &str, names: &HashMap<String, String>) -> String {
    words(script).map(|word| names.get(word).map_or(word, String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_hash_become_short_and_all_else_stays() {
        let script = "f = {\n__wbg_now_043d245551b22f9c: () => wasm.__wbindgen_malloc(1),\n__wbg_studentcore_new: \"a$1\",\n\
            __wbindgen_generic_0000000000000001: wasm_bindgen__convert__invoke__h2a3099ec6d2740d7,\n};\n\
            wasm.wasm_bindgen__convert__invoke__h2a3099ec6d2740d7(é);\n";
        let names = short_names(script);
        assert_eq!(names.len(), 3);
        let short = "f = {\n$0: () => wasm.__wbindgen_malloc(1),\n__wbg_studentcore_new: \"a$1\",\n$1: $2,\n};\nwasm.$2(é);\n";
        assert_eq!(renamed(script, &names), short);
    }
}
