//! The text of shaders, without a device: valid for every program, within the limits one may count on, few dispatches.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use oto_graph::{Activation, Conv, Plan, Program, Tensor, Trace, grad};
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::qrdqn::{QrDqnConfig, program};
use oto_wgpu::wgsl::{Limits, Shader, shader};

/// The lowest limits that WebGPU allows.
const LOWEST: Limits =
    Limits { threads: 256, workgroup_bytes: 16_384, busy: 64, groups: 65_535, buffer_bytes: 128 << 20 };

fn valid(program: &Program) -> Shader {
    let shader = shader(&Plan::new(program), LOWEST).unwrap();
    for dispatch in &shader.dispatches {
        let text = &dispatch.text;
        let module = naga::front::wgsl::parse_str(text)
            .unwrap_or_else(|e| panic!("{}\n{text}", e.emit_to_string(text)));
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
        validator.validate(&module).unwrap_or_else(|e| panic!("{}\n{text}", e.emit_to_string(text)));
        assert_eq!(module.entry_points.len(), 1);
        assert_eq!(module.entry_points[0].name, dispatch.name);
    }
    shader
}

fn qrdqn(
    hidden: Vec<usize>,
    quantiles: usize,
    batch_size: usize,
    actions: usize,
    teachers: usize,
) -> Program {
    let config = QrDqnConfig { hidden, quantiles, batch_size, ..QrDqnConfig::default() };
    program(&config, Sizes { observation: 4, actions: Actions::Discrete(actions), teachers, weighted: false })
}

#[test]
fn train_steps_of_many_shapes_are_valid_and_few_dispatches() {
    for (hidden, quantiles, batch, actions, teachers) in [
        (vec![64, 64], 32, 64, 2, 1),
        (vec![128, 128], 200, 64, 2, 1),
        (vec![17], 1, 1, 3, 0),
        (vec![8, 33, 5], 400, 1024, 6, 3),
        (vec![512, 512], 51, 256, 18, 2),
    ] {
        let shader = valid(&qrdqn(hidden, quantiles, batch, actions, teachers));
        if teachers == 1 {
            assert!(shader.dispatches.len() <= 25, "{}", shader.dispatches.len());
        }
    }
}

#[test]
fn all_operations_are_valid() {
    let t = Trace::new();
    let x = t.data("x", &[6, 3, 8, 8]);
    let (w, b) = (t.state("w", &[4, 3, 3, 3]), t.state("b", &[4]));
    let y = x.conv2d(w, b, Conv { stride: 2, padding: 1 }, Activation::Tanh);
    let flat = y.reshape(&[6, 64]);
    let all = flat.exp() + flat.softplus().sqrt() - flat.abs().log() * flat.tanh() / (flat.square() + 1.0);
    let more: Tensor<'_> = all.log_softmax() + all.maximum(flat).minimum(all * 2.0).recip().relu();
    let loss = (more.logsumexp()
        + more.stop_gradient().max_last()
        + more.sum_last()
        + more.stop_gradient().argmax_last())
    .mean();
    let gradients = grad(loss, &[w]);
    let program = t.finish(&[(w, w - gradients[0] * 0.1), (b, b + 1.0)], &[("loss", loss)]);
    valid(&program);
}

#[test]
fn what_a_device_cannot_hold_is_said() {
    let plan = Plan::new(&qrdqn(vec![64, 64], 32, 64, 2, 1));
    let refusal = |limits| shader(&plan, limits).err().unwrap();
    let small = refusal(Limits { buffer_bytes: 4096, ..LOWEST });
    assert!(small.contains("a buffer of the device holds 4096"), "{small}");
    let narrow = refusal(Limits { workgroup_bytes: 16, ..LOWEST });
    assert!(narrow.contains("the device has 16"), "{narrow}");
    let few = refusal(Limits { groups: 2, ..LOWEST });
    assert!(few.contains("the device runs 2 at once"), "{few}");
}

/// Software drivers end a loop silently after 65,535 rounds.
#[test]
fn loops_are_short() {
    let shader = valid(&qrdqn(vec![64, 64], 400, 1024, 6, 1));
    let lines = shader.dispatches.iter().flat_map(|d| d.text.lines());
    for line in lines.filter(|l| l.trim_start().starts_with("for ")) {
        let bound = line.split(" < ").nth(1).and_then(|b| b.split("u;").next()?.parse::<usize>().ok());
        let step =
            line.split("+= ").nth(1).and_then(|b| b.split("u)").next()?.parse::<usize>().ok()).unwrap_or(1);
        let rounds = bound.map_or(0, |b| b.div_ceil(step));
        assert!(rounds < 65_535, "{line}");
    }
}
