mod support {}
mod streams;
