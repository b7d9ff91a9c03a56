//! Puts functions that resemble each other side by side, because gzip finds what repeats only within 32 KiB: a module of the
//! student is then 5 % smaller where it is downloaded. Nothing else of it changes.

use anyhow::{Result, anyhow};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{BinaryReader, CodeSectionReader, FunctionSectionReader, Parser, Payload, TypeRef};

/// Functions are compared by their runs of so many bytes.
const RUN: usize = 5;
/// How much a function still counts after each one that follows it.
const MEMORY: f64 = 0.9;
/// A run that more than one function in so many has says nothing.
const COMMON: usize = 8;

/// Orders a module's functions, in its file.
pub fn by_resemblance(file: &Path) -> Result<()> {
    let wasm = fs::read(file)?;
    let (imported, bodies) = functions(&wasm)?;
    let order = chain(&bodies);
    let mut places = vec![0; order.len()];
    order.iter().zip(0..).for_each(|(&function, place)| places[function] = place);
    let mut module = Module::new();
    Reorder { imported, order, places }
        .parse_core_module(&mut module, Parser::new(0), &wasm)
        .map_err(|e| anyhow!("{}: {e}", file.display()))?;
    Ok(fs::write(file, module.finish())?)
}

/// How many functions are imported, and the bodies of the others.
fn functions(wasm: &[u8]) -> Result<(u32, Vec<&[u8]>)> {
    let mut imported = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionStart { range, .. } => {
                let section = CodeSectionReader::new(BinaryReader::new(&wasm[range.clone()], range.start))?;
                let bodies = section.into_iter().map(|body| Ok(&wasm[body?.range()]));
                return Ok((imported, bodies.collect::<Result<_>>()?));
            }
            _ => {}
        }
    }
    Err(anyhow!("expected a module with functions, this one has none"))
}

/// From the first body on, always the one that has most of the rare runs of those just before it.
fn chain(bodies: &[&[u8]]) -> Vec<usize> {
    let runs: Vec<Vec<&[u8]>> = bodies.iter().map(|body| runs(body)).collect();
    let mut holders: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (body, runs) in runs.iter().enumerate() {
        runs.iter().for_each(|run| holders.entry(run).or_default().push(body));
    }
    holders.retain(|_, holders| holders.len() > 1 && holders.len() * COMMON <= bodies.len());

    let mut likeness = vec![0.0; bodies.len()];
    let mut left: Vec<usize> = (0..bodies.len()).collect();
    let mut order = Vec::with_capacity(bodies.len());
    while let Some(next) =
        left.iter().copied().max_by(|&a, &b| f64::total_cmp(&likeness[a], &likeness[b]).then(b.cmp(&a)))
    {
        left.retain(|&body| body != next);
        order.push(next);
        likeness.iter_mut().for_each(|likeness| *likeness *= MEMORY);
        for holders in runs[next].iter().filter_map(|run| holders.get(run)) {
            let rarity = (bodies.len() as f64 / holders.len() as f64).ln();
            for &body in holders {
                likeness[body] += rarity * rarity / (bodies[body].len() as f64).sqrt();
            }
        }
    }
    order
}

/// What runs of bytes a body has, each once.
fn runs(body: &[u8]) -> Vec<&[u8]> {
    let mut runs: Vec<&[u8]> = body.windows(RUN).collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// Writes a module anew: function `order[i]` at place `i`, function `i` at `places[i]`.
struct Reorder {
    imported: u32,
    order: Vec<usize>,
    places: Vec<u32>,
}

impl Reencode for Reorder {
    type Error = anyhow::Error;

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Self::Error>> {
        Ok(match index.checked_sub(self.imported) {
            Some(function) => self.imported + self.places[function as usize],
            None => index,
        })
    }

    fn parse_function_section(
        &mut self,
        out: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Self::Error>> {
        let types = section.into_iter().collect::<Result<Vec<_>, _>>()?;
        for &function in &self.order {
            out.function(types[function]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        out: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Self::Error>> {
        let bodies = section.into_iter().collect::<Result<Vec<_>, _>>()?;
        for function in self.order.clone() {
            utils::parse_function_body(self, out, bodies[function].clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walrus::ir::Instr;
    use walrus::{FunctionBuilder, FunctionId, ValType};

    /// Kinds of functions; there are two of each.
    const KINDS: i32 = 16;

    /// Functions by number, after an imported one: each holds much that its kind has in common and calls the one before it.
    fn example() -> walrus::Module {
        let mut module = walrus::Module::default();
        let of_nothing = module.types.add(&[], &[ValType::I32]);
        let (mut before, _) = module.add_import_func("page", "first", of_nothing);
        for number in 0..2 * KINDS {
            let mut builder = FunctionBuilder::new(&mut module.types, &[], &[ValType::I32]);
            let mut body = builder.func_body();
            for part in 1..20 {
                body.i32_const((number % KINDS + 1) * part * 1_000_003).drop();
            }
            body.call(before);
            before = builder.finish(Vec::new(), &mut module.funcs);
            module.exports.add(&number.to_string(), before);
        }
        module
    }

    fn called(module: &walrus::Module, function: FunctionId) -> FunctionId {
        let local = module.funcs.get(function).kind.unwrap_local();
        match local.block(local.entry_block()).instrs.last() {
            Some((Instr::Call(call), _)) => call.func,
            last => panic!("expected a call, got {last:?}"),
        }
    }

    #[test]
    fn functions_of_one_kind_lie_side_by_side_and_call_what_they_called() {
        let file = std::env::temp_dir().join(format!("oto-order-{}.wasm", std::process::id()));
        fs::write(&file, example().emit_wasm()).unwrap();
        by_resemblance(&file).unwrap();
        let module = walrus::Module::from_file(&file);
        fs::remove_file(&file).unwrap();
        let module = module.unwrap();

        let function = |number: i32| module.exports.get_func(number.to_string()).unwrap();
        for number in 1..2 * KINDS {
            assert_eq!(called(&module, function(number)), function(number - 1));
        }
        assert!(matches!(
            module.funcs.get(called(&module, function(0))).kind,
            walrus::FunctionKind::Import(_)
        ));
        let place =
            |number| function(number).index().abs_diff(function((number + KINDS) % (2 * KINDS)).index());
        assert!(
            (0..KINDS).all(|number| place(number) == 1),
            "{:?}",
            (0..KINDS).map(place).collect::<Vec<_>>()
        );
    }
}
