//! Fieldlock: modbus.
