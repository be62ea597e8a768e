//! The commands of the program, run as separate processes.

mod doctor;
mod settings;
mod signals;
