//! A build without candle: oto's own layers compute every network.

use crate::PolicyError;
use crate::device::{Device, DeviceError};
use crate::steps::Steps;
use oto_rl::convolution::ConvEncoder;

/// There is none.
pub(crate) enum Network {}

impl Network {
    pub fn open(_: Option<&ConvEncoder>, _: &Steps, _: usize) -> Result<Option<Self>, PolicyError> {
        Ok(None)
    }

    pub fn chosen(self, _: impl FnMut(&[f32]) -> Vec<f32>) -> Result<(Option<Self>, String), PolicyError> {
        match self {}
    }

    pub fn takes(&self, _: &[f32]) -> bool {
        match *self {}
    }

    pub fn forward(&mut self, _: &[f32]) -> Result<&[f32], PolicyError> {
        match *self {}
    }
}

/// See [`crate::device::use_device`].
pub(crate) fn use_device(device: Device) -> Result<(), DeviceError> {
    match device {
        Device::Cpu => Ok(()),
        device => Err(DeviceError::NotBuilt(device)),
    }
}
