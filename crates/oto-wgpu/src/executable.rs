//! A program on the device: three buffers, one pipeline for each kernel, one bind group for all.
//!
//! Steps gather in slots of the data buffer and are submitted together; what their reports need is copied into one of a few
//! readback buffers, which are mapped when the device gets there. Nothing here waits but `run` and `read`.

use crate::gpu::Gpu;
use crate::readback::{Piece, Readback};
use crate::wgsl::{Dispatch, Shader, shader};
use oto_graph::plan::{Plan, Storage};
use oto_graph::{Adapter, Backend, BackendError, Device, Executable, InputId, Op, Program, Report, Role};
use std::collections::VecDeque;
use std::sync::Arc;

/// The backend named "webgpu".
pub struct Wgpu {
    /// Where programs run.
    pub gpu: Arc<Gpu>,
    /// Makes the backend that goes on if the device is lost.
    pub fallback: fn() -> Box<dyn Backend + Send>,
    /// Milliseconds since whenever.
    pub now: fn() -> f64,
}

impl Backend for Wgpu {
    fn name(&self) -> &str {
        "webgpu"
    }

    fn adapter(&self) -> Option<&Adapter> {
        Some(self.gpu.adapter())
    }

    fn fallback(&self) -> Option<Box<dyn Backend + Send>> {
        Some((self.fallback)())
    }

    fn compile(&self, program: Program) -> Result<Box<dyn Executable>, BackendError> {
        program.check()?;
        Ok(Box::new(Compiled::new(self.gpu.clone(), self.now, program)?))
    }
}

/// Steps that a submission holds at most.
const STEPS: usize = 16;
/// How long a submission may keep the device, in milliseconds: the page wants to be drawn, too.
const SUBMISSION_MS: f64 = 8.0;
/// Submissions under way at most.
const SUBMISSIONS: usize = 2;

struct Compiled {
    gpu: Arc<Gpu>,
    program: Program,
    plan: Plan,
    shader: Shader,
    pipelines: Vec<wgpu::ComputePipeline>,
    bind_group: wgpu::BindGroup,
    state: wgpu::Buffer,
    work: wgpu::Buffer,
    /// Slots of one step's data each.
    data: wgpu::Buffer,
    /// Numbers of a slot.
    slot: usize,
    /// The data of steps that wait to be submitted, slot after slot.
    staged: Vec<u8>,
    waiting: usize,
    started: u64,
    /// Steps that a submission may hold now, by how long the last ones took.
    allowed: usize,
    /// Of each submission under way: steps done after it, steps in it, and when it was made.
    submitted: VecDeque<(u64, usize, f64)>,
    now: fn() -> f64,
    reports: Readback,
    watched: Vec<InputId>,
    report: Report,
    snapshots: Readback,
    snapshot: Option<Report>,
    /// Indices that come as data, and the numbers that they must stay below: the device could not refuse them.
    indices: Vec<(InputId, usize)>,
}

impl Compiled {
    fn new(gpu: Arc<Gpu>, now: fn() -> f64, program: Program) -> Result<Self, BackendError> {
        let plan = Plan::new(&program);
        let shader = shader(&plan, gpu.limits).map_err(BackendError::Device)?;
        let device = &gpu.device;
        #[cfg(not(target_arch = "wasm32"))]
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let layout = bind_group_layout(device);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = |dispatch: &Dispatch| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&dispatch.name),
                source: wgpu::ShaderSource::Wgsl(dispatch.text.as_str().into()),
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&dispatch.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(&dispatch.name),
                compilation_options: Default::default(),
                cache: None,
            })
        };
        let pipelines = shader.dispatches.iter().map(pipeline).collect();
        let numbers = |storage| {
            let of = plan.slots.iter().filter(|s| s.storage == storage);
            of.map(|s| s.len.next_multiple_of(4)).sum::<usize>()
        };
        let alignment = device.limits().min_storage_buffer_offset_alignment as usize / 4;
        let slot = numbers(Storage::Data).max(4).next_multiple_of(alignment.max(4));
        let state = buffer(device, numbers(Storage::State));
        let work = buffer(device, shader.work);
        let data = buffer(device, slot * STEPS);
        let one_slot =
            wgpu::BufferBinding { buffer: &data, offset: 0, size: wgpu::BufferSize::new(4 * slot as u64) };
        let resources =
            [state.as_entire_binding(), work.as_entire_binding(), wgpu::BindingResource::Buffer(one_slot)];
        let entry = |(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource };
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &resources.into_iter().enumerate().map(entry).collect::<Vec<_>>(),
        });
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(e) = pollster::block_on(scope.pop()) {
            return Err(BackendError::Device(e.to_string()));
        }
        let indices = data_indices(&plan);
        Ok(Self {
            staged: Vec::with_capacity(4 * slot * STEPS),
            waiting: 0,
            started: 0,
            allowed: 1,
            submitted: VecDeque::new(),
            now,
            reports: Readback::new(SUBMISSIONS + 1),
            watched: Vec::new(),
            report: Report::default(),
            snapshots: Readback::new(1),
            snapshot: None,
            gpu,
            program,
            plan,
            shader,
            pipelines,
            bind_group,
            state,
            work,
            data,
            slot,
            indices,
        })
    }

    /// Where an input's numbers begin in its buffer.
    fn place(&self, input: InputId) -> usize {
        let place = self.plan.input(input);
        self.shader.bases[place.slot] + place.offset
    }

    fn state_piece(&self, input: InputId) -> Piece<'_> {
        Piece { buffer: &self.state, at: self.place(input), len: self.program.inputs[input.0].len() }
    }

    fn output_pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.plan.program.outputs.iter().map(|(_, n)| {
            let place = self.plan.place(*n).expect("outputs are computed");
            Piece {
                buffer: &self.work,
                at: self.shader.bases[place.slot] + place.offset,
                len: self.plan.len(*n),
            }
        })
    }

    fn states(&self) -> impl Iterator<Item = InputId> {
        let states = self.program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State);
        states.map(|(i, _)| InputId(i))
    }

    /// Adds one step's data to what waits, with its indices checked.
    fn stage(&mut self, data: &[&[f32]]) -> Result<(), BackendError> {
        self.program.check_counts(data.len(), self.program.outputs.len())?;
        for ((input, _), values) in self.program.data().zip(data) {
            self.program.check_size(input, values.len())?;
            for (_, below) in self.indices.iter().filter(|(i, _)| *i == input) {
                let bad = values.iter().find(|v| v.fract() != 0.0 || !(0.0..*below as f32).contains(*v));
                if let Some(bad) = bad {
                    return Err(BackendError::Index { value: *bad, below: *below });
                }
            }
        }
        let first = self.staged.len();
        self.staged.resize(first + 4 * self.slot, 0);
        for ((input, _), values) in self.program.data().zip(data) {
            let at = first + 4 * self.place(input);
            let (words, _) = self.staged[at..at + 4 * values.len()].as_chunks_mut::<4>();
            words.iter_mut().zip(*values).for_each(|(w, v)| *w = v.to_le_bytes());
        }
        self.waiting += 1;
        self.started += 1;
        Ok(())
    }

    /// Submits what waits.
    fn submit(&mut self) {
        if self.waiting > 0 {
            self.submit_with_report();
        }
    }

    /// Submits what waits; a report of all steps so far goes to a free readback buffer, if there is one.
    fn submit_with_report(&mut self) {
        let gpu = self.gpu.clone();
        gpu.queue.write_buffer(&self.data, 0, &self.staged);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        if self.waiting > 0 {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for step in 0..self.waiting {
                pass.set_bind_group(0, &self.bind_group, &[(4 * step * self.slot) as u32]);
                for (pipeline, dispatch) in self.pipelines.iter().zip(&self.shader.dispatches) {
                    pass.set_pipeline(pipeline);
                    pass.dispatch_workgroups(dispatch.groups, 1, 1);
                }
            }
        }
        let mut reports = std::mem::take(&mut self.reports);
        let watched = self.watched.iter().map(|i| self.state_piece(*i));
        let pieces = self.output_pieces().chain(watched).collect::<Vec<_>>();
        let copied = reports.copy(&gpu, &mut encoder, &pieces, self.started);
        gpu.queue.submit([encoder.finish()]);
        if copied {
            reports.map_newest();
            self.submitted.push_back((self.started, self.waiting, (self.now)()));
        }
        self.reports = reports;
        self.staged.clear();
        self.waiting = 0;
    }

    /// Numbers of the pieces that a report is made of.
    fn split(lens: impl Iterator<Item = usize>, mut values: &[f32]) -> Vec<Vec<f32>> {
        let take = |len| {
            let (head, rest) = values.split_at(len);
            values = rest;
            head.to_vec()
        };
        lens.map(take).collect()
    }

    fn take_report(&mut self) -> Result<bool, BackendError> {
        let Some((steps, values)) = self.reports.take_newest(&self.gpu)? else { return Ok(false) };
        self.pace(steps);
        let outputs = self.output_pieces().map(|p| p.len).collect::<Vec<_>>();
        let count = outputs.iter().sum::<usize>();
        let watched = self.watched.iter().map(|i| self.program.inputs[i.0].len());
        self.report = Report {
            steps,
            outputs: Self::split(outputs.into_iter(), &values[..count]),
            state: Self::split(watched, &values[count..]),
        };
        Ok(true)
    }

    /// Lets submissions grow while they are short, by the time that the one just reported took.
    fn pace(&mut self, reported: u64) {
        let behind = self.submitted.len() > 1;
        while let Some((after, steps, at)) = self.submitted.pop_front_if(|(after, ..)| *after <= reported) {
            // The first one compiles; one that waited for another says nothing about itself.
            if after == reported && steps > 0 && !behind && reported > 1 {
                let each = ((self.now)() - at) / steps as f64;
                let fits = (SUBMISSION_MS / each.max(1e-3)) as usize;
                self.allowed = fits.clamp(1, (2 * self.allowed).min(STEPS));
            }
        }
    }

    fn take_snapshot(&mut self) -> Result<(), BackendError> {
        if let Some((steps, values)) = self.snapshots.take_newest(&self.gpu)? {
            let lens = self.states().map(|i| self.program.inputs[i.0].len());
            let state = Self::split(lens.collect::<Vec<_>>().into_iter(), &values);
            self.snapshot = Some(Report { steps, outputs: Vec::new(), state });
        }
        Ok(())
    }
}

fn buffer(device: &wgpu::Device, len: usize) -> wgpu::Buffer {
    use wgpu::BufferUsages as Use;
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * len.max(4) as u64,
        usage: Use::STORAGE | Use::COPY_SRC | Use::COPY_DST,
        mapped_at_creation: false,
    })
}

fn bind_group_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |(binding, is_data)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: is_data },
            has_dynamic_offset: is_data,
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
        // A row of an input, for instance one teacher's actions, is still that input, and so is one that is repeated.
        let mut root = plan.root(index);
        while let Op::Broadcast(x) = plan.node(root).op {
            root = plan.root(x);
        }
        if let Op::Input(i) = plan.node(root).op {
            found.push((InputId(i), count));
        }
    }
    found
}

impl Executable for Compiled {
    fn program(&self) -> &Program {
        &self.program
    }

    fn write(&mut self, input: InputId, values: &[f32]) -> Result<(), BackendError> {
        self.program.check_size(input, values.len())?;
        self.gpu.alive()?;
        self.submit();
        let (first, at) = (self.place(input), self.program.inputs[input.0].role);
        if at == Role::State {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
            self.gpu.queue.write_buffer(&self.state, 4 * first as u64, &bytes);
            self.snapshot = None;
        }
        Ok(())
    }

    fn read(&self, input: InputId, values: &mut [f32]) -> Result<(), BackendError> {
        self.program.check_size(input, values.len())?;
        if let Some(snapshot) = self.snapshot.as_ref().filter(|s| s.steps == self.started) {
            let which = self.states().position(|i| i == input);
            if let Some(which) = which {
                values.copy_from_slice(&snapshot.state[which]);
                return Ok(());
            }
        }
        if self.waiting > 0 {
            return Err(BackendError::Device("steps wait to be submitted: ask for a snapshot first".into()));
        }
        let mut once = Readback::new(1);
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        once.copy(&self.gpu, &mut encoder, &[self.state_piece(input)], 0);
        self.gpu.queue.submit([encoder.finish()]);
        once.map_newest();
        values.copy_from_slice(&once.wait(&self.gpu)?.1);
        Ok(())
    }

    fn run(&mut self, data: &[&[f32]], outputs: &mut [Vec<f32>]) -> Result<(), BackendError> {
        self.program.check_counts(data.len(), outputs.len())?;
        self.gpu.alive()?;
        self.submit();
        while self.reports.under_way() > 0 {
            self.reports.wait(&self.gpu)?;
        }
        self.stage(data)?;
        self.submit();
        let (_, values) = self.reports.wait(&self.gpu)?;
        let lens = self.output_pieces().map(|p| p.len).collect::<Vec<_>>();
        outputs.clone_from_slice(&Self::split(lens.into_iter(), &values));
        Ok(())
    }

    fn device(&mut self) -> Option<&mut dyn Device> {
        Some(self)
    }
}

impl Device for Compiled {
    fn watch(&mut self, state: &[InputId]) {
        self.watched = state.to_vec();
    }

    fn has_room(&self) -> bool {
        self.waiting < self.allowed
    }

    fn start(&mut self, data: &[&[f32]]) -> Result<(), BackendError> {
        self.gpu.alive()?;
        if self.waiting == STEPS {
            self.submit();
        }
        self.stage(data)
    }

    fn report(&mut self) -> Result<Option<&Report>, BackendError> {
        self.gpu.alive()?;
        self.gpu.poll();
        let came = self.take_report()?;
        let under_way = self.reports.under_way();
        let unreported = under_way == 0 && self.behind() > 0;
        if unreported || self.waiting > 0 && under_way < SUBMISSIONS {
            self.submit_with_report();
        }
        Ok(came.then_some(&self.report))
    }

    fn behind(&self) -> u64 {
        self.started - self.report.steps
    }

    fn snapshot(&mut self) -> Result<Option<&Report>, BackendError> {
        self.gpu.alive()?;
        self.submit();
        self.gpu.poll();
        self.take_snapshot()?;
        let fresh = self.snapshot.as_ref().is_some_and(|s| s.steps == self.started);
        if !fresh && self.snapshots.under_way() == 0 {
            let mut snapshots = std::mem::take(&mut self.snapshots);
            let pieces = self.states().map(|i| self.state_piece(i)).collect::<Vec<_>>();
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            snapshots.copy(&self.gpu, &mut encoder, &pieces, self.started);
            self.gpu.queue.submit([encoder.finish()]);
            snapshots.map_newest();
            self.snapshots = snapshots;
        }
        Ok(self.snapshot.as_ref())
    }

    fn last_snapshot(&self) -> Option<&Report> {
        self.snapshot.as_ref()
    }
}
