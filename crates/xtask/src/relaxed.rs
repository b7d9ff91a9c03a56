//! Two modules from one build. oto's products use relaxed SIMD's multiply-add, twice as fast where a browser has it; a module
//! that names it does not even load where there is none. So each web package gets a second module without it.
//!
//! The compiler also makes relaxed minima and maxima of plain ones, which may lose a NaN: they are turned back in both.

use anyhow::Result;
use std::path::{Path, PathBuf};
use walrus::ir::{
    BinaryOp, Binop, Instr, InstrSeq, LocalGet, LocalSet, TernOp, TernaryOp, VisitorMut, dfs_pre_order_mut,
};
use walrus::{LocalId, ModuleConfig, ValType};

/// Mends `NAME_bg.wasm` and writes `NAME_plain_bg.wasm` beside it; gives both.
pub fn split(module: &Path, keep_names: bool) -> Result<[PathBuf; 2]> {
    let plain = plain(module);
    rewrite(module, &plain, true, keep_names)?;
    rewrite(module, module, false, keep_names)?;
    Ok([module.into(), plain])
}

fn plain(module: &Path) -> PathBuf {
    let name = module.file_name().unwrap_or_default().to_string_lossy().replace("_bg.wasm", "_plain_bg.wasm");
    module.with_file_name(name)
}

fn rewrite(from: &Path, to: &Path, without_madd: bool, keep_names: bool) -> Result<()> {
    let mut config = ModuleConfig::new();
    config.generate_producers_section(false).generate_name_section(keep_names);
    let mut module = config.parse_file(from)?;
    for (_, function) in module.funcs.iter_local_mut() {
        let addend = without_madd.then(|| module.locals.add(ValType::V128));
        let entry = function.entry_block();
        dfs_pre_order_mut(&mut Rewrite { addend }, function, entry);
    }
    module.emit_wasm_file(to)
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
    fn one_module_keeps_the_multiply_add_and_none_a_maximum_that_may_lose_nan() {
        let folder = std::env::temp_dir().join(format!("oto-relaxed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = example(&folder);
        let [fast, plain] = split(&file, false).unwrap().map(|module| instructions(&module));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(
            fast.contains("RelaxedMadd") && fast.contains("PMax") && !fast.contains("RelaxedMax"),
            "{fast}"
        );
        assert!(plain.contains("F32x4Mul") && plain.contains("F32x4Add"), "{plain}");
        assert!(!plain.contains("Relaxed"), "{plain}");
    }
}
