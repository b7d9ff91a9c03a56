//! Buffers in which the device leaves what this thread wants to read. Mapping one takes as long as the device needs to get
//! there: it is asked for, and looked at later.

use crate::gpu::Gpu;
use oto_graph::BackendError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A stretch of a buffer, in numbers.
pub struct Piece<'b> {
    pub buffer: &'b wgpu::Buffer,
    pub at: usize,
    pub len: usize,
}

/// A few buffers, used in turn.
#[derive(Default)]
pub struct Readback {
    count: usize,
    free: Vec<wgpu::Buffer>,
    busy: VecDeque<Busy>,
}

/// A buffer that the device fills.
struct Busy {
    buffer: wgpu::Buffer,
    len: usize,
    /// Steps done by then.
    steps: u64,
    /// [`WAITS`], [`MAPPED`] or [`FAILED`].
    told: Arc<AtomicU8>,
}

const WAITS: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// How long a callback of finished work may take on another thread.
const CALLBACK_MS: u32 = 5_000;

impl Readback {
    /// At most `count` buffers under way.
    pub fn new(count: usize) -> Self {
        Self { count, free: Vec::new(), busy: VecDeque::new() }
    }

    /// Buffers that are not read yet.
    pub fn under_way(&self) -> usize {
        self.busy.len()
    }

    /// Records copies of these pieces into a free buffer; false if there is none.
    pub fn copy(
        &mut self,
        gpu: &Gpu,
        encoder: &mut wgpu::CommandEncoder,
        pieces: &[Piece<'_>],
        steps: u64,
    ) -> bool {
        if self.busy.len() >= self.count {
            return false;
        }
        let len = pieces.iter().map(|p| p.len).sum::<usize>();
        self.free.retain(|b| b.size() >= 4 * len as u64);
        let buffer = self.free.pop().unwrap_or_else(|| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * len.max(1) as u64,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let mut to = 0;
        for p in pieces.iter().filter(|p| p.len > 0) {
            let bytes = |n: usize| 4 * n as u64;
            encoder.copy_buffer_to_buffer(p.buffer, bytes(p.at), &buffer, bytes(to), bytes(p.len));
            to += p.len;
        }
        self.busy.push_back(Busy { buffer, len, steps, told: Arc::new(AtomicU8::new(WAITS)) });
        true
    }

    /// Asks for the newest buffer's contents; its copies are submitted.
    pub fn map_newest(&mut self) {
        let Some(busy) = self.busy.back() else { return };
        let told = busy.told.clone();
        busy.buffer.slice(..4 * busy.len.max(1) as u64).map_async(wgpu::MapMode::Read, move |result| {
            told.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
    }

    /// The newest contents that are there, with the steps done by then; older ones are skipped.
    pub fn take_newest(&mut self, gpu: &Gpu) -> Result<Option<(u64, Vec<f32>)>, BackendError> {
        let mut newest = None;
        while let Some(told) =
            self.busy.front().map(|b| b.told.load(Ordering::Acquire)).filter(|t| *t != WAITS)
        {
            let busy = self.busy.pop_front().expect("it was just looked at");
            if told == FAILED {
                return Err(gpu.unreadable());
            }
            let slice = busy.buffer.slice(..4 * busy.len.max(1) as u64);
            let view = slice.get_mapped_range().map_err(|_| gpu.unreadable())?;
            let (words, _) = view.as_chunks::<4>();
            newest = Some((busy.steps, words[..busy.len].iter().map(|w| f32::from_le_bytes(*w)).collect()));
            drop(view);
            busy.buffer.unmap();
            self.free.push(busy.buffer);
        }
        Ok(newest)
    }

    /// Waits for everything under way and gives the newest. A page cannot wait, and gets an error.
    pub fn wait(&mut self, gpu: &Gpu) -> Result<(u64, Vec<f32>), BackendError> {
        gpu.wait_for_work()?;
        let mut newest = self.take_newest(gpu)?;
        // Another thread that polls the device may have been given the callback, and not have run it yet. A page has no other thread.
        let mut left = if cfg!(target_family = "wasm") { 0 } else { CALLBACK_MS };
        while left > 0 && newest.is_none() && !self.busy.is_empty() {
            left -= 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
            newest = self.take_newest(gpu)?;
        }
        newest.ok_or_else(|| {
            let later = "a page cannot wait for its GPU: results come later".into();
            gpu.alive().err().unwrap_or(BackendError::Device(later))
        })
    }
}
