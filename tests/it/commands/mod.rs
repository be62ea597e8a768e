//! The program's commands, as processes of their own.

mod doctor;
mod settings;
mod signals;
