//! How far noise alone swings the pole of CartPoleSwingUp-v0, for several voltages, friction factors, amplitudes and correlation
//! times: an untrained policy explores no more than this.
//!
//!     cargo run --release -p oto-env --example swing_up_noise

use oto_env::rng::Rng;
use oto_env::swing_up::SwingUp;
use oto_env::{Action, EnvError, Environment};

/// Steps of noise alone for each setting.
const NOISE_STEPS: u32 = 30_000;

/// One line for each setting: mean episode length, share of steps above horizontal and within 0.3 rad of upright, mean reward.
fn main() -> Result<(), EnvError> {
    println!("volt\tk_f\tsigma\tseconds\tlength\tabove %\tupright %\treward");
    for voltage in [8.0, 10.0, 12.0, 15.0] {
        for k_f in [0.0, 5.0, 10.0, 12.0] {
            for amplitude in [0.3, 0.5, 1.0] {
                for seconds in [0.01, 0.1, 0.2, 0.4, 1.3] {
                    let [length, above, upright, reward] = wander([voltage, k_f], [amplitude, seconds])?;
                    println!(
                        "{voltage}\t{k_f}\t{amplitude}\t{seconds}\t{length:.0}\t{above:.2}\t{upright:.3}\t{reward:.4}"
                    );
                }
            }
        }
    }
    Ok(())
}

fn wander([voltage, k_f]: [f64; 2], [amplitude, seconds]: [f64; 2]) -> Result<[f64; 4], EnvError> {
    let mut env = SwingUp::new(&format!("CartPoleSwingUp-v0?voltage_max={voltage}&k_f={k_f}"))?;
    let mut rng = Rng::new(77);
    let mut observation = [0f32; 10];
    env.reset(Some(78), &mut observation)?;
    let period = env.options().config.control_period;
    let mut noise = Noise::new(period, seconds, &mut rng);
    let (mut episodes, mut above, mut upright, mut reward) = (1u32, 0u32, 0u32, 0.0);
    for _ in 0..NOISE_STEPS {
        let action = [(amplitude * noise.next(&mut rng)).clamp(-1.0, 1.0) as f32];
        let step = env.step(Action::Continuous(&action), &mut observation)?;
        above += u32::from(observation[3] > 0.0);
        upright += u32::from(observation[3] > 0.955);
        reward += step.reward;
        if step.done() {
            env.reset(None, &mut observation)?;
            episodes += 1;
            noise = Noise::new(period, seconds, &mut rng);
        }
    }
    let share = |count: u32| 100.0 * f64::from(count) / f64::from(NOISE_STEPS);
    let steps = f64::from(NOISE_STEPS);
    Ok([steps / f64::from(episodes), share(above), share(upright), reward / steps])
}

/// Ornstein-Uhlenbeck noise with variance 1.
struct Noise {
    now: f64,
    /// The share that is kept from one step to the next.
    kept: f64,
}

impl Noise {
    fn new(period: f64, seconds: f64, rng: &mut Rng) -> Self {
        Self { now: rng.normal(), kept: (-period / seconds).exp() }
    }

    fn next(&mut self, rng: &mut Rng) -> f64 {
        self.now = self.kept * self.now + (1.0 - self.kept * self.kept).sqrt() * rng.normal();
        self.now
    }
}
