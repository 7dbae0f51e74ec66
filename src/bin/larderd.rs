fn main() -> std::process::ExitCode {
    larder::device::main()
}
