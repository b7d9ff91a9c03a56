//! Two modules from one build. oto's products use relaxed SIMD's multiply-add, twice as fast where a host has it; a module
//! that names it does not even load where there is none. So each web package and each component gets a second one without it.
//!
//! The compiler also makes relaxed minima and maxima of plain ones, which may lose a NaN: they are turned back in both.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use walrus::ir::{
    BinaryOp, Binop, Instr, InstrSeq, LocalGet, LocalSet, TernOp, TernaryOp, VisitorMut, dfs_pre_order_mut,
};
use walrus::{LocalId, ModuleConfig, ValType};
use wasm_encoder::{Component, RawSection};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// Mends `NAME_bg.wasm` and writes `NAME_plain_bg.wasm` beside it; gives both.
pub fn split(module: &Path, keep_names: bool) -> Result<[PathBuf; 2]> {
    let plain = beside(module, "_bg.wasm", "_plain_bg.wasm");
    write_both(module, &plain, |bytes, without_madd| rewrite(bytes, without_madd, keep_names))?;
    Ok([module.into(), plain])
}

/// Mends a component `NAME.wasm` and writes `NAME_plain.wasm` beside it.
pub fn split_component(component: &Path) -> Result<()> {
    let plain = beside(component, ".wasm", "_plain.wasm");
    write_both(component, &plain, rewrite_component)
}

fn beside(module: &Path, end: &str, new: &str) -> PathBuf {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    module.with_file_name(format!("{}{new}", name.trim_end_matches(end)))
}

fn write_both(fast: &Path, plain: &Path, rewrite: impl Fn(&[u8], bool) -> Result<Vec<u8>>) -> Result<()> {
    let bytes = fs::read(fast).with_context(|| format!("cannot read {}", fast.display()))?;
    let without = rewrite(&bytes, true)?;
    Validator::new_with_features(without_relaxed_simd())
        .validate_all(&without)
        .context("the plain module")?;
    fs::write(plain, without)?;
    fs::write(fast, rewrite(&bytes, false)?)?;
    Ok(())
}

fn without_relaxed_simd() -> WasmFeatures {
    WasmFeatures::default().difference(WasmFeatures::RELAXED_SIMD)
}

/// A component with its modules rewritten, those of components within it too; all other sections stay as they are.
fn rewrite_component(component: &[u8], without_madd: bool) -> Result<Vec<u8>> {
    let mut out = Component::new();
    // How deep the parser is in modules and components within the component.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        if let (0, Some((id, range))) = (depth, payload.as_section()) {
            let old = &component[range];
            let new = match &payload {
                Payload::ModuleSection { .. } if names_relaxed_simd(old) => {
                    rewrite(old, without_madd, false)?
                }
                Payload::ComponentSection { .. } => rewrite_component(old, without_madd)?,
                _ => old.to_vec(),
            };
            out.section(&RawSection { id, data: &new });
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    Ok(out.finish())
}

/// Whether a module needs a host with relaxed SIMD.
fn names_relaxed_simd(module: &[u8]) -> bool {
    Validator::new_with_features(without_relaxed_simd()).validate_all(module).is_err()
}

fn rewrite(module: &[u8], without_madd: bool, keep_names: bool) -> Result<Vec<u8>> {
    let mut config = ModuleConfig::new();
    config.generate_producers_section(false).generate_name_section(keep_names);
    let mut module = config.parse(module)?;
    for (_, function) in module.funcs.iter_local_mut() {
        let addend = without_madd.then(|| module.locals.add(ValType::V128));
        let entry = function.entry_block();
        dfs_pre_order_mut(&mut Rewrite { addend }, function, entry);
    }
    Ok(module.emit_wasm())
}

/// Rewrites a function's instructions; multiply-adds only where there is a local for what is added.
struct Rewrite {
    addend: Option<LocalId>,
}

impl VisitorMut for Rewrite {
    fn start_instr_seq_mut(&mut self, seq: &mut InstrSeq) {
        let old = std::mem::take(&mut seq.instrs);
        for (instr, at) in old {
            let instrs = self.instead(instr);
            seq.instrs.extend(instrs.into_iter().map(|instr| (instr, at)));
        }
    }
}

impl Rewrite {
    fn instead(&self, instr: Instr) -> Vec<Instr> {
        let binary = |op| Instr::Binop(Binop { op });
        match (instr, self.addend) {
            (Instr::Binop(Binop { op }), _) => vec![binary(as_written(op))],
            // a, b, c lie on the stack.
            (Instr::TernOp(TernOp { op: TernaryOp::F32x4RelaxedMadd }), Some(local)) => vec![
                Instr::LocalSet(LocalSet { local }),
                binary(BinaryOp::F32x4Mul),
                Instr::LocalGet(LocalGet { local }),
                binary(BinaryOp::F32x4Add),
            ],
            (instr, _) => vec![instr],
        }
    }
}

fn as_written(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::F32x4RelaxedMin => BinaryOp::F32x4PMin,
        BinaryOp::F32x4RelaxedMax => BinaryOp::F32x4PMax,
        BinaryOp::F64x2RelaxedMin => BinaryOp::F64x2PMin,
        BinaryOp::F64x2RelaxedMax => BinaryOp::F64x2PMax,
        op => op,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walrus::{FunctionBuilder, Module};
    use wasm_encoder::{ComponentSectionId, CustomSection};

    /// `f(a, b, c) = relaxed_max(relaxed_madd(a, b, c), c)`, written to a file.
    fn example(folder: &Path) -> PathBuf {
        let mut module = Module::default();
        let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::V128; 3], &[ValType::V128]);
        let [a, b, c] = [(); 3].map(|()| module.locals.add(ValType::V128));
        let mut body = builder.func_body();
        body.local_get(a).local_get(b).local_get(c).tern_op(TernaryOp::F32x4RelaxedMadd);
        body.local_get(c).binop(BinaryOp::F32x4RelaxedMax);
        let function = builder.finish(vec![a, b, c], &mut module.funcs);
        module.exports.add("f", function);
        let file = folder.join("example_bg.wasm");
        module.emit_wasm_file(&file).unwrap();
        file
    }

    /// The module's instructions, in order.
    fn instructions(file: &Path) -> String {
        let module = Module::from_file(file).unwrap();
        let (_, function) = module.funcs.iter_local().next().unwrap();
        let instrs = &function.block(function.entry_block()).instrs;
        instrs.iter().map(|(instr, _)| format!("{instr:?} ")).collect()
    }

    #[test]
    fn a_component_loses_relaxed_simd_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("oto-relaxed-component-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let module = fs::read(example(&folder)).unwrap();
        let [core, nested] = [ComponentSectionId::CoreModule, ComponentSectionId::Component].map(u8::from);
        let mut inner = Component::new();
        inner.section(&RawSection { id: core, data: &module });
        let mut outer = Component::new();
        outer.section(&CustomSection { name: "kept".into(), data: b"as it is"[..].into() });
        outer.section(&RawSection { id: core, data: &module });
        outer.section(&RawSection { id: nested, data: &inner.finish() });
        let file = folder.join("example.wasm");
        fs::write(&file, outer.finish()).unwrap();
        split_component(&file).unwrap();
        let [fast, plain] = ["example.wasm", "example_plain.wasm"].map(|f| fs::read(folder.join(f)).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        let has = |component: &[u8], part: &[u8]| component.windows(part.len()).any(|at| at == part);
        assert!(has(&fast, b"as it is") && has(&plain, b"as it is"));
        Validator::new().validate_all(&fast).unwrap();
        assert!(names_relaxed_simd(&fast) && !names_relaxed_simd(&plain));
        // The multiply-add twice, and no maximum that may lose a NaN.
        let operators = |component: &[u8]| {
            let bodies = Parser::new(0).parse_all(component).filter_map(|payload| match payload.unwrap() {
                Payload::CodeSectionEntry(body) => Some(body),
                _ => None,
            });
            let operators = bodies.flat_map(|body| body.get_operators_reader().unwrap().into_iter());
            operators.map(|operator| format!("{:?} ", operator.unwrap())).collect::<String>()
        };
        let fast = operators(&fast);
        assert_eq!(
            (fast.matches("RelaxedMadd").count(), fast.matches("RelaxedMax").count()),
            (2, 0),
            "{fast}"
        );
    }

    #[test]
    fn one_module_keeps_the_multiply_add_and_none_a_maximum_that_may_lose_nan() {
        let folder = std::env::temp_dir().join(format!("oto-relaxed-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = example(&folder);
        let [fast, plain] = split(&file, false).unwrap().map(|module| instructions(&module));
        fs::remove_dir_all(&folder).unwrap();
        assert!(
            fast.contains("RelaxedMadd") && fast.contains("PMax") && !fast.contains("RelaxedMax"),
            "{fast}"
        );
        assert!(plain.contains("F32x4Mul") && plain.contains("F32x4Add"), "{plain}");
        assert!(!plain.contains("Relaxed"), "{plain}");
    }
}
