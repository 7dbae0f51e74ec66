fn main() -> std::process::ExitCode {
    larder::hub::main()
}
