//! Prints the motto that the build script wrote.

fn main() {
    println!("{}", include_str!(concat!(env!("OUT_DIR"), "/motto.txt")));
}
