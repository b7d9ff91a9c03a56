//! Times each dispatch of a student's step alone on this machine's device: hidden width and quantiles as arguments. The numbers
//! that it sees are zeros. Where `WGSL` names a folder, the shaders are written there.

use oto_graph::Plan;
use oto_graph::plan::Storage;
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::qrdqn::{QrDqnConfig, program};
use oto_wgpu::wgsl::{Limits, shader};
use std::time::Instant;

const LIMITS: Limits =
    Limits { threads: 256, workgroup_bytes: 16_384, busy: 64, groups: 65_535, buffer_bytes: 128 << 20 };
/// Runs of each dispatch in a submission.
const RUNS: u32 = 50;

fn main() {
    let mut sizes = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a size"));
    let (hidden, quantiles) = (sizes.next().unwrap_or(64), sizes.next().unwrap_or(32));
    let config = QrDqnConfig { hidden: vec![hidden; 2], quantiles, ..QrDqnConfig::default() };
    let sizes = Sizes { observation: 4, actions: Actions::Discrete(2), teachers: 1, weighted: false };
    let plan = Plan::new(&program(&config, sizes));
    let shader = shader(&plan, LIMITS).expect("a small program");
    if let Ok(path) = std::env::var("WGSL") {
        for d in &shader.dispatches {
            std::fs::write(format!("{path}/{}.wgsl", d.name), &d.text).unwrap();
        }
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(descriptor);
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    println!("{}", adapter.get_info().name);
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).expect("a device");
    let buffer = |len: usize| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * len.max(4) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    };
    let total =
        |s| plan.slots.iter().filter(|x| x.storage == s).map(|x| x.len.next_multiple_of(4)).sum::<usize>();
    let buffers = [buffer(total(Storage::State)), buffer(shader.work), buffer(total(Storage::Data))];
    let entries = [0u32, 1, 2].map(|binding| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: binding == 2 },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    });
    let layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let entries: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
        .collect();
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let mut all = 0.0;
    for d in &shader.dispatches {
        let start = Instant::now();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(d.text.as_str().into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(&d.name),
            compilation_options: Default::default(),
            cache: None,
        });
        let run = |count: u32| {
            let mut encoder = device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_bind_group(0, &group, &[]);
                pass.set_pipeline(&pipeline);
                (0..count).for_each(|_| pass.dispatch_workgroups(d.groups, 1, 1));
            }
            let start = Instant::now();
            queue.submit([encoder.finish()]);
            device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            start.elapsed().as_secs_f64() * 1e6
        };
        run(2);
        let first = start.elapsed().as_secs_f64();
        let best = (0..5).map(|_| run(RUNS) / f64::from(RUNS)).fold(f64::INFINITY, f64::min);
        all += best;
        println!("{:>6} {:>4} groups {best:>9.1} us first {first:.3} s", d.name, d.groups);
    }
    println!("{all:.1} us");
}
