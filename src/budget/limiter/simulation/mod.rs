//! A simulation of whole runs in virtual time: the machines of the limiter, or their rivals, against
//! a model of the server.

mod rivals;

mod scenario;

mod server;

mod world;

mod goals;
mod promises;
