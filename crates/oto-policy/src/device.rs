//! The device that computes the policies of a process: the processor, or a graphics card. candle computes on graphics cards, and on
//! the processor where it is faster than oto's own layers.

use std::fmt;
use std::str::FromStr;

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA graphics card; cargo feature `cuda`.
    Cuda,
    /// An Apple graphics card; cargo feature `metal`.
    Metal,
}

impl Device {
    /// All names.
    pub const NAMES: [&str; 3] = ["cpu", "cuda", "metal"];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let known =
            [Device::Cpu, Device::Cuda, Device::Metal].into_iter().find(|device| device.name() == name);
        known.ok_or_else(|| DeviceError::Unknown(name.into()))
    }
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such name.
    #[error("expected the device \"cpu\", \"cuda\" or \"metal\", got {0:?}")]
    Unknown(String),
    /// The program lacks it.
    #[error("this build lacks the device {0}: build with the cargo feature `{0}`")]
    NotBuilt(Device),
    /// The machine lacks it.
    #[error("the device {device} is not available: {reason}")]
    Unavailable {
        /// The device.
        device: Device,
        /// Its driver's reason.
        reason: String,
    },
}

/// Sets the device of every policy that this process loads from now on. Without a call oto's own layers compute all of them.
///
/// # Errors
/// A device that the build or the machine lacks.
pub fn use_device(device: Device) -> Result<(), DeviceError> {
    crate::candle::use_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names_and_others_are_refused() {
        for name in Device::NAMES {
            assert_eq!(name.parse::<Device>().unwrap().name(), name);
        }
        let error = "tpu".parse::<Device>().unwrap_err().to_string();
        assert_eq!(error, r#"expected the device "cpu", "cuda" or "metal", got "tpu""#);
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    fn a_device_that_is_not_built_in_names_its_feature() {
        for device in [Device::Cuda, Device::Metal] {
            let error = use_device(device).unwrap_err();
            assert_eq!(error, DeviceError::NotBuilt(device));
            assert!(error.to_string().contains(&format!("cargo feature `{device}`")), "{error}");
        }
    }
}
