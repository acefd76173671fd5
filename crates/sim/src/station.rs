//! A pump station: a well that fills, two pumps that empty it, and their registers.
//!
//! | table | address | meaning | unit |
//! |---|---|---|---|
//! | holding, input | 0 | level | mm, 0 to 2000 |
//! | holding, input | 1 | inflow | 0.1 l/s |
//! | holding, input | 2 | outflow | 0.1 l/s |
//! | holding, input | 3, 4 | pump 1, pump 2 | 0 stopped, 1 running |
//! | holding, input | 5, 6 | speed of pump 1, pump 2 | 0.1 % |
//! | holding, input | 7 | starts of both pumps | count |
//! | holding, input | 8 | overflow so far | mm |
//! | holding, input | 9 | ticks of the process | count, wraps |
//! | holding | 40 | level setpoint | mm, 0 to 2000 |
//! | holding | 41 | outflow limit | 0.1 l/s, 0 to 2000 |
//! | holding | 42-99 | scratch, no meaning | |
//! | coil | 0, 1 | pump 1, pump 2 enabled | |
//! | coil | 2-7 | scratch, no meaning | |
//! | coil, discrete | 8 | alarm: level high | |
//! | coil, discrete | 9 | alarm: level low | |
//! | coil, discrete | 10 | alarm: both pumps disabled | |
//!
//! Holding 0-39 and coils 8-15 belong to the process and can't be written. Everything outside
//! holding 0-99, input 0-39, coil 0-15 and discrete 0-15 does not exist.

use std::time::Duration;

pub const HOLDING_REGISTERS: usize = 100;
pub const INPUT_REGISTERS: usize = 40;
pub const COILS: usize = 16;

pub const LEVEL: u16 = 0;
pub const TICKS: u16 = 9;
pub const SETPOINT: u16 = 40;
pub const OUTFLOW_LIMIT: u16 = 41;
pub const PUMP_1_ENABLED: u16 = 0;
pub const PUMP_2_ENABLED: u16 = 1;
pub const ALARM_HIGH: u16 = 8;
pub const ALARM_LOW: u16 = 9;
pub const ALARM_NO_PUMP: u16 = 10;

/// What the station itself accepts for its setpoint and limit: wider than a good policy.
pub const MAX_SETTING: u16 = 2000;

const DEPTH_MM: f64 = 2000.0;
const HIGH_MM: f64 = 1500.0;
const LOW_MM: f64 = 200.0;
/// One pump at full speed.
const PUMP_LITRES_PER_SECOND: f64 = 60.0;
/// How the level moves with a surplus of 1 l/s. A well this narrow shows movement within a
/// demo's patience.
const MM_PER_LITRE: f64 = 1.0;

/// Why an access is refused, as the Modbus exception says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 0x02: no such address, or not for writing.
    Address,
    /// 0x03: a value outside the station's limits.
    Value,
}

#[derive(Debug, Clone)]
pub struct Station {
    holding: [u16; HOLDING_REGISTERS],
    coils: [bool; COILS],
    level_mm: f64,
    overflow_mm: f64,
    seconds: f64,
}

impl Default for Station {
    fn default() -> Self {
        Self::new()
    }
}

impl Station {
    pub fn new() -> Self {
        let mut station = Self {
            holding: [0; HOLDING_REGISTERS],
            coils: [false; COILS],
            level_mm: 800.0,
            overflow_mm: 0.0,
            seconds: 0.0,
        };
        station.holding[usize::from(SETPOINT)] = 800;
        station.holding[usize::from(OUTFLOW_LIMIT)] = 1000;
        station.coils[usize::from(PUMP_1_ENABLED)] = true;
        station.coils[usize::from(PUMP_2_ENABLED)] = true;
        station.step(Duration::ZERO);
        station
    }

    /// Lets the process run for `elapsed` and shows it in the registers.
    pub fn step(&mut self, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        self.seconds += elapsed;
        let inflow = 40.0 + 15.0 * (self.seconds / 5.0).sin();
        let speeds = self.pump_speeds();
        let outflow = (speeds[0] + speeds[1]) * PUMP_LITRES_PER_SECOND;
        let level = self.level_mm + (inflow - outflow) * MM_PER_LITRE * elapsed;
        self.overflow_mm += (level - DEPTH_MM).max(0.0);
        self.level_mm = level.clamp(0.0, DEPTH_MM);
        self.show(inflow, outflow, speeds);
    }

    pub fn holding(&self, first: u16, count: u16) -> Result<&[u16], Refusal> {
        cut(&self.holding, first, count)
    }

    pub fn input(&self, first: u16, count: u16) -> Result<&[u16], Refusal> {
        cut(&self.holding[..INPUT_REGISTERS], first, count)
    }

    pub fn coils(&self, first: u16, count: u16) -> Result<&[bool], Refusal> {
        cut(&self.coils, first, count)
    }

    /// All values are written, or none.
    pub fn write_holding(&mut self, first: u16, values: &[u16]) -> Result<(), Refusal> {
        let start = usize::from(first);
        if first < SETPOINT || start + values.len() > HOLDING_REGISTERS {
            return Err(Refusal::Address);
        }
        let beyond =
            |(at, value): (usize, &u16)| at <= usize::from(OUTFLOW_LIMIT) && *value > MAX_SETTING;
        if (start..).zip(values).any(beyond) {
            return Err(Refusal::Value);
        }
        self.holding[start..start + values.len()].copy_from_slice(values);
        Ok(())
    }

    /// All values are written, or none.
    pub fn write_coils(&mut self, first: u16, values: &[bool]) -> Result<(), Refusal> {
        let start = usize::from(first);
        if start + values.len() > usize::from(ALARM_HIGH) {
            return Err(Refusal::Address);
        }
        self.coils[start..start + values.len()].copy_from_slice(values);
        Ok(())
    }

    /// 0 to 1 for each pump: the first follows the level, the second helps when it is far off.
    fn pump_speeds(&self) -> [f64; 2] {
        let setpoint = f64::from(self.holding[usize::from(SETPOINT)]);
        let limit = f64::from(self.holding[usize::from(OUTFLOW_LIMIT)]) / 10.0;
        let above = self.level_mm - setpoint;
        let wanted = [(0.5 + above / 100.0), (above - 100.0) / 200.0];
        let mut left = limit / PUMP_LITRES_PER_SECOND;
        std::array::from_fn(|pump| {
            if !self.coils[pump] {
                return 0.0;
            }
            let speed = wanted[pump].clamp(0.0, 1.0).min(left);
            left -= speed;
            speed
        })
    }

    fn show(&mut self, inflow: f64, outflow: f64, speeds: [f64; 2]) {
        for (pump, speed) in speeds.into_iter().enumerate() {
            let runs = u16::from(speed > 0.0);
            let started = runs > self.holding[3 + pump];
            self.holding[3 + pump] = runs;
            self.holding[5 + pump] = register(speed * 1000.0);
            self.holding[7] = self.holding[7].wrapping_add(u16::from(started));
        }
        self.holding[usize::from(LEVEL)] = register(self.level_mm);
        self.holding[1] = register(inflow * 10.0);
        self.holding[2] = register(outflow * 10.0);
        self.holding[8] = register(self.overflow_mm);
        let ticks = &mut self.holding[usize::from(TICKS)];
        *ticks = ticks.wrapping_add(1);
        self.coils[usize::from(ALARM_HIGH)] = self.level_mm > HIGH_MM;
        self.coils[usize::from(ALARM_LOW)] = self.level_mm < LOW_MM;
        self.coils[usize::from(ALARM_NO_PUMP)] = !self.coils[0] && !self.coils[1];
    }
}

fn cut<T>(table: &[T], first: u16, count: u16) -> Result<&[T], Refusal> {
    let start = usize::from(first);
    let range = start..start + usize::from(count);
    table.get(range).ok_or(Refusal::Address)
}

/// Rounded into the range of a register.
fn register(value: f64) -> u16 {
    value.round().clamp(0.0, f64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn the_level_settles_near_the_setpoint() {
        let mut station = Station::new();
        for setpoint in [800, 1200, 400] {
            station.write_holding(SETPOINT, &[setpoint]).unwrap();
            run(&mut station, 60);
            let level = station.holding(LEVEL, 1).unwrap()[0];
            assert!(level.abs_diff(setpoint) < 120, "{level} for {setpoint}");
        }
        assert_eq!(alarms(&station), [false; 3]);
    }

    #[test]
    fn a_reckless_setpoint_raises_the_alarm() {
        let mut station = Station::new();
        station.write_holding(SETPOINT, &[1900]).unwrap();
        run(&mut station, 120);
        assert_eq!(alarms(&station), [true, false, false]);
    }

    #[test]
    fn without_pumps_the_well_overflows() {
        let mut station = Station::new();
        station.write_coils(0, &[false, false]).unwrap();
        run(&mut station, 60);
        assert_eq!(alarms(&station), [true, false, true]);
        assert_eq!(station.holding(LEVEL, 1).unwrap(), [2000]);
        assert!(station.holding(8, 1).unwrap()[0] > 0);
    }

    #[test]
    fn what_the_process_owns_and_what_does_not_exist_is_refused() {
        let mut station = Station::new();
        let before = station.holding;
        for (first, values, refusal) in [
            (0, &[1][..], Refusal::Address),
            (39, &[1, 2], Refusal::Address),
            (40, &[2001], Refusal::Value),
            (40, &[100, 2001], Refusal::Value),
            (99, &[1, 1], Refusal::Address),
            (65535, &[1, 1], Refusal::Address),
        ] {
            assert_eq!(station.write_holding(first, values), Err(refusal));
        }
        assert_eq!(station.holding, before);
        assert_eq!(station.write_coils(7, &[true, true]), Err(Refusal::Address));
        assert!(station.holding(99, 1).is_ok());
        assert!(station.holding(99, 2).is_err());
        assert!(station.input(39, 2).is_err());
        assert!(station.coils(65535, 2000).is_err());
    }

    fn run(station: &mut Station, seconds: u32) {
        for _ in 0..seconds * 10 {
            station.step(TICK);
        }
    }

    fn alarms(station: &Station) -> [bool; 3] {
        [ALARM_HIGH, ALARM_LOW, ALARM_NO_PUMP].map(|coil| station.coils(coil, 1).unwrap()[0])
    }
}
