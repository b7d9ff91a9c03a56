//! A program on the device: three buffers, one pipeline for each kernel, one bind group for all.

use crate::gpu::Gpu;
use crate::wgsl::{Shader, shader};
use oto_graph::plan::{Plan, Storage};
use oto_graph::{Backend, BackendError, Executable, InputId, Op, Program, Role};
use std::sync::Arc;
use std::sync::mpsc;

/// The backend named "webgpu".
#[derive(Clone)]
pub struct Wgpu(pub Arc<Gpu>);

impl Backend for Wgpu {
    fn name(&self) -> &str {
        "webgpu"
    }

    fn compile(&self, program: Program) -> Result<Box<dyn Executable>, BackendError> {
        Ok(Box::new(Compiled::new(self.0.clone(), program)?))
    }
}

struct Compiled {
    gpu: Arc<Gpu>,
    program: Program,
    plan: Plan,
    shader: Shader,
    pipelines: Vec<wgpu::ComputePipeline>,
    bind_group: wgpu::BindGroup,
    state: wgpu::Buffer,
    work: wgpu::Buffer,
    data: wgpu::Buffer,
    /// What the device copies for us to read.
    readback: wgpu::Buffer,
    /// One step's data, as the data buffer holds it.
    staged: Vec<f32>,
    /// Indices that come as data, and the numbers that they must stay below: the device could not refuse them.
    indices: Vec<(InputId, usize)>,
}

impl Compiled {
    fn new(gpu: Arc<Gpu>, program: Program) -> Result<Self, BackendError> {
        let plan = Plan::new(&program);
        let shader = shader(&plan, gpu.limits).map_err(BackendError::Device)?;
        let device = &gpu.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(shader.text.as_str().into()),
        });
        let layout = bind_group_layout(device);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = |name: &str| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(name),
                compilation_options: Default::default(),
                cache: None,
            })
        };
        let pipelines = shader.dispatches.iter().map(|d| pipeline(&d.name)).collect();
        let size = |storage| {
            plan.slots.iter().filter(|s| s.storage == storage).map(|s| s.len.next_multiple_of(4)).sum()
        };
        let (state_len, data_len): (usize, usize) = (size(Storage::State), size(Storage::Data));
        use wgpu::BufferUsages as Use;
        let buffer = |len: usize, usage: Use| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * len.max(4) as u64,
                usage: usage | Use::COPY_SRC | Use::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let state = buffer(state_len, Use::STORAGE);
        let work = buffer(shader.work, Use::STORAGE);
        let data = buffer(data_len, Use::STORAGE);
        let outputs: usize = plan.program.outputs.iter().map(|(_, n)| plan.len(*n)).sum();
        let largest = program.inputs.iter().map(|i| i.len()).max().unwrap_or(0).max(outputs);
        let readback = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * largest.max(4) as u64,
            usage: Use::MAP_READ | Use::COPY_DST,
            mapped_at_creation: false,
        });
        let entries = [&state, &work, &data].into_iter().enumerate();
        let entries =
            entries.map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() });
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries.collect::<Vec<_>>(),
        });
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(e) = pollster::block_on(scope.pop()) {
            return Err(BackendError::Device(e.to_string()));
        }
        #[cfg(target_arch = "wasm32")]
        drop(scope);
        let indices = data_indices(&plan);
        let staged = vec![0.0; data_len];
        Ok(Self {
            gpu,
            program,
            plan,
            shader,
            pipelines,
            bind_group,
            state,
            work,
            data,
            readback,
            staged,
            indices,
        })
    }

    fn check(&self, input: InputId, got: usize) -> Result<(), BackendError> {
        let spec = &self.program.inputs[input.0];
        match spec.len() {
            expected if expected == got => Ok(()),
            expected => Err(BackendError::Size { name: spec.name.clone(), expected, got }),
        }
    }

    /// Where an input lies: its buffer, and the first of its numbers there.
    fn place(&self, input: InputId) -> (&wgpu::Buffer, usize) {
        let place = self.plan.input(input);
        let buffer = match self.program.inputs[input.0].role {
            Role::State => &self.state,
            Role::Data => &self.data,
        };
        (buffer, self.shader.bases[place.slot] + place.offset)
    }

    fn alive(&self) -> Result<(), BackendError> {
        match self.gpu.lost() {
            Some(reason) => Err(BackendError::Lost(reason)),
            None => Ok(()),
        }
    }

    /// Stages one step's data and checks its indices.
    fn stage(&mut self, data: &[&[f32]]) -> Result<(), BackendError> {
        let expected = self.program.data().count();
        if expected != data.len() {
            return Err(BackendError::Count { what: "data inputs", expected, got: data.len() });
        }
        let inputs = self.program.data().map(|(id, _)| id).zip(data).collect::<Vec<_>>();
        for (input, values) in inputs {
            self.check(input, values.len())?;
            for (_, below) in self.indices.iter().filter(|(i, _)| *i == input) {
                let bad = values.iter().find(|v| v.fract() != 0.0 || !(0.0..*below as f32).contains(*v));
                if let Some(bad) = bad {
                    let text = format!("index {bad} is not a whole number below {below}");
                    return Err(BackendError::Device(text));
                }
            }
            let (_, at) = self.place(input);
            self.staged[at..at + values.len()].copy_from_slice(values);
        }
        Ok(())
    }

    /// Records the dispatches of one step.
    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_bind_group(0, &self.bind_group, &[]);
        for (pipeline, dispatch) in self.pipelines.iter().zip(&self.shader.dispatches) {
            pass.set_pipeline(pipeline);
            pass.dispatch_workgroups(dispatch.groups, 1, 1);
        }
    }

    /// Copies pieces of buffers into the readback buffer: (buffer, first number, numbers).
    fn gather(&self, encoder: &mut wgpu::CommandEncoder, pieces: &[(&wgpu::Buffer, usize, usize)]) -> usize {
        let mut to = 0;
        for (buffer, at, len) in pieces {
            encoder.copy_buffer_to_buffer(
                buffer,
                4 * *at as u64,
                &self.readback,
                4 * to as u64,
                4 * *len as u64,
            );
            to += len;
        }
        to
    }

    /// Waits for the readback buffer and copies its first `len` numbers out.
    fn fetch(&self, len: usize, mut take: impl FnMut(&[u8])) -> Result<(), BackendError> {
        let slice = self.readback.slice(..4 * len as u64);
        let (tell, told) = mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // Nobody listens any more if the device was lost meanwhile.
            let _ = tell.send(result);
        });
        let failed = |what: String| self.alive().err().unwrap_or(BackendError::Device(what));
        self.gpu.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(e.to_string()))?;
        match told.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => return Err(failed("a page cannot wait for its GPU: results come later".into())),
        }
        let view = slice.get_mapped_range().map_err(|e| failed(e.to_string()))?;
        take(&view);
        drop(view);
        self.readback.unmap();
        self.alive()
    }
}

fn bind_group_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |(binding, read_only)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries = [(0, false), (1, false), (2, true)].map(entry);
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

/// Data inputs that are used as indices, and the counts that they choose among.
fn data_indices(plan: &Plan) -> Vec<(InputId, usize)> {
    let mut found = Vec::new();
    for node in &plan.program.nodes {
        let (index, count) = match node.op {
            Op::Pick { x, index } => (index, plan.node(x).shape[1]),
            Op::Unpick { index, .. } => (index, node.shape[1]),
            Op::Rows { x, index } => (index, plan.node(x).shape[0]),
            Op::AddRows { index, .. } => (index, node.shape[0]),
            _ => continue,
        };
        // A row of an input, for instance one teacher's actions, is still that input.
        let root = plan.node(plan.root(index));
        if let Op::Input(i) = root.op {
            found.push((InputId(i), count));
        }
    }
    found
}

/// As the device stores them.
fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn numbers(bytes: &[u8], to: &mut [f32]) {
    let (words, _) = bytes.as_chunks::<4>();
    to.iter_mut().zip(words).for_each(|(t, w)| *t = f32::from_le_bytes(*w));
}

impl Executable for Compiled {
    fn program(&self) -> &Program {
        &self.program
    }

    fn write(&mut self, input: InputId, values: &[f32]) -> Result<(), BackendError> {
        self.check(input, values.len())?;
        self.alive()?;
        let (buffer, at) = self.place(input);
        self.gpu.queue.write_buffer(buffer, 4 * at as u64, &bytes(values));
        Ok(())
    }

    fn read(&self, input: InputId, values: &mut [f32]) -> Result<(), BackendError> {
        self.check(input, values.len())?;
        self.alive()?;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let (buffer, at) = self.place(input);
        let len = self.gather(&mut encoder, &[(buffer, at, values.len())]);
        self.gpu.queue.submit([encoder.finish()]);
        self.fetch(len, |view| numbers(view, values))
    }

    fn run(&mut self, data: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), BackendError> {
        let expected = self.program.outputs.len();
        if expected != outputs.len() {
            return Err(BackendError::Count { what: "outputs", expected, got: outputs.len() });
        }
        self.alive()?;
        self.stage(data)?;
        self.gpu.queue.write_buffer(&self.data, 0, &bytes(&self.staged));
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.record(&mut encoder);
        let piece = |n| {
            let place = self.plan.place(n).expect("outputs are computed");
            (&self.work, self.shader.bases[place.slot] + place.offset, self.plan.len(n))
        };
        let pieces = self.plan.program.outputs.iter().map(|(_, n)| piece(*n)).collect::<Vec<_>>();
        let len = self.gather(&mut encoder, &pieces);
        self.gpu.queue.submit([encoder.finish()]);
        let mut rest = vec![0.0; len];
        self.fetch(len, |view| numbers(view, &mut rest))?;
        let mut from = 0;
        for (out, (_, _, len)) in outputs.iter_mut().zip(&pieces) {
            out.clear();
            out.extend_from_slice(&rest[from..from + len]);
            from += len;
        }
        Ok(())
    }
}
