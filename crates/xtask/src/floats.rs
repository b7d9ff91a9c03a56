//! A library that shows a number in a message brings the standard library's ways of it, eight kilobytes of a page's download. In a web
//! package oto's own, which is there anyway, takes their place.

use anyhow::{Result, ensure};
use rustc_demangle::demangle;
use walrus::{FunctionBuilder, FunctionId, FunctionKind, Module, ValType};

/// The standard library's functions.
const STANDARD: [&str; 2] = ["<f64 as core::fmt::Display>::fmt", "<f64 as core::fmt::Debug>::fmt"];
/// Ours. It takes the same: a reference to the number, and a formatter.
const OURS: &str = "<oto_json::shortest::Shown as core::fmt::Display>::fmt";

/// Replaces them in a module with names, where they are and ours is; what nothing calls afterwards goes with wasm-bindgen.
pub fn replace(wasm: &[u8]) -> Result<Vec<u8>> {
    let mut module = Module::from_buffer(wasm)?;
    let Some(ours) = find(&module, OURS) else { return Ok(wasm.into()) };
    for name in STANDARD {
        let Some(standard) = find(&module, name) else { continue };
        let same = signature(&module, standard) == signature(&module, ours);
        ensure!(same, "{OURS} has another signature than the standard library's function");
        let args = [module.locals.add(ValType::I32), module.locals.add(ValType::I32)];
        let mut builder =
            FunctionBuilder::new(&mut module.types, &[ValType::I32, ValType::I32], &[ValType::I32]);
        builder.func_body().local_get(args[0]).local_get(args[1]).call(ours);
        module.funcs.get_mut(standard).kind = FunctionKind::Local(builder.local_func(args.into()));
    }
    Ok(module.emit_wasm())
}

fn find(module: &Module, name: &str) -> Option<FunctionId> {
    let named = |mangled: &str| format!("{:#}", demangle(mangled)) == name;
    module
        .funcs
        .iter()
        .find(|function| function.name.as_deref().is_some_and(named))
        .map(|function| function.id())
}

fn signature(module: &Module, function: FunctionId) -> (&[ValType], &[ValType]) {
    module.types.params_results(module.funcs.get(function).ty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with a function of each name, which gives the number.
    fn module(names: &[(&str, i32)]) -> Module {
        let mut module = Module::default();
        for (name, number) in names {
            let mut builder =
                FunctionBuilder::new(&mut module.types, &[ValType::I32, ValType::I32], &[ValType::I32]);
            builder.name((*name).into()).func_body().i32_const(*number);
            let args = vec![module.locals.add(ValType::I32), module.locals.add(ValType::I32)];
            let function = builder.finish(args, &mut module.funcs);
            module.exports.add(&number.to_string(), function);
        }
        module
    }

    const DISPLAY: &str = "_RNvXs7_NtNtCsgXGp5Oqx2Ny_4core3fmt5floatdNtB7_7Display3fmt";
    const SHOWN: &str =
        "_ZN64_$LT$oto_json..shortest..Shown$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE";

    #[test]
    fn the_standard_library_s_function_calls_ours() {
        let wasm = module(&[(DISPLAY, 1), (SHOWN, 2)]).emit_wasm();
        let replaced = Module::from_buffer(&replace(&wasm).unwrap()).unwrap();
        let display = replaced.funcs.get(find(&replaced, STANDARD[0]).unwrap()).kind.unwrap_local();
        let ours = find(&replaced, OURS).unwrap();
        let body = &display.block(display.entry_block()).instrs;
        let calls =
            body.iter().any(|(instr, _)| matches!(instr, walrus::ir::Instr::Call(call) if call.func == ours));
        assert!(calls, "{body:?}");
    }

    #[test]
    fn a_module_without_ours_stays() {
        let wasm = module(&[(DISPLAY, 1)]).emit_wasm();
        assert_eq!(replace(&wasm).unwrap(), wasm);
    }
}
