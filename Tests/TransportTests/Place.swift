// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

/// The kinds of address over which processes reach each other.
enum Place: CaseIterable {
    case tcp, unix

    /// Where one can listen: a free port, or a path that is not there.
    func address() -> String {
        switch self {
        case .tcp: "127.0.0.1:0"
        case .unix: "unix:/tmp/millrace-\(getpid())-\(UInt32.random(in: 0...(.max)))"
        }
    }
}

/// A blocking socket of the test's own.
final class RawSocket {
    let file: Int32
    private let address: String

    init(_ address: String) {
        self.address = address
        let kind = Int32(SOCK_STREAM.rawValue)
        file = socket(address.hasPrefix("unix:") ? AF_UNIX : AF_INET, kind, 0)
    }

    deinit { close(file) }

    var path: String { String(address.dropFirst("unix:".count)) }

    func connect() -> Bool { withAddress { Glibc.connect(file, $0, $1) == 0 } }
    func listen() -> Bool {
        withAddress { bind(file, $0, $1) == 0 } && Glibc.listen(file, 5) == 0
    }

    func send(_ text: String) -> Bool { write(file, text, text.utf8.count) == text.utf8.count }

    /// What has come, without waiting.
    func received() -> String {
        var bytes = [UInt8](repeating: 0, count: 1_000)
        let count = recv(file, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
    }

    private func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Bool) -> Bool {
        if address.hasPrefix("unix:") {
            var target = sockaddr_un()
            target.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &target.sun_path) { $0.copyBytes(from: path.utf8) }
            return withUnsafePointer(to: &target) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
        }
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = UInt16(address.split(separator: ":")[1]).map(\.bigEndian) ?? 0
        target.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}

/// The mode of a file, with its kind; nil where there is none.
func mode(_ path: String) -> mode_t? {
    var found = stat()
    return lstat(path, &found) == 0 ? found.st_mode : nil
}
