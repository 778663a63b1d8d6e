// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient
internal import Synchronization

/// What this machine can do without us: the limits that the cell is measured against.
enum Machine {
    /// Writes pieces one after the other, each durable before the next.
    struct DurableWrites {
        var latency = Histogram()
        var mebibytesPerSecond = 0.0
    }

    /// Appends to one file, with fdatasync after each piece.
    static func appendToFile(
        _ folder: String, pieceBytes: Int, seconds: Double
    ) throws(ClientError) -> DurableWrites {
        let path = "\(folder)/raw-\(getpid())"
        let file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0o600)
        guard file >= 0 else { throw ClientError("\(path): errno \(errno)") }
        defer {
            close(file)
            unlink(path)
        }
        return try repeating(pieceBytes, seconds) { piece in
            write(file, piece.baseAddress, piece.count) == piece.count && fdatasync(file) == 0
        }
    }

    /// Makes each piece a file of its own, durable with its name: what a folder of objects takes.
    static func makeFiles(
        _ folder: String, pieceBytes: Int, seconds: Double
    ) throws(ClientError) -> DurableWrites {
        let path = "\(folder)/raw-\(getpid())-files"
        guard mkdir(path, 0o700) == 0 else { throw ClientError("\(path): errno \(errno)") }
        let parent = open(path, O_RDONLY | O_DIRECTORY)
        var made: [String] = []
        defer {
            for name in made { unlink(name) }
            close(parent)
            rmdir(path)
        }
        return try repeating(pieceBytes, seconds) { piece in
            let name = "\(path)/\(made.count)"
            let file = open(name + "~", O_CREAT | O_WRONLY | O_EXCL, 0o600)
            guard file >= 0 else { return false }
            defer { close(file) }
            guard write(file, piece.baseAddress, piece.count) == piece.count,
                fdatasync(file) == 0, rename(name + "~", name) == 0
            else { return false }
            made.append(name)
            return fsync(parent) == 0
        }
    }

    private static func repeating(
        _ pieceBytes: Int, _ seconds: Double, _ step: (UnsafeRawBufferPointer) -> Bool
    ) throws(ClientError) -> DurableWrites {
        let piece = (0..<pieceBytes).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ ($0 >> 8)) }
        var result = DurableWrites()
        let start = monotonicNanoseconds
        let end = start + Int64(seconds * 1e9)
        var written = 0
        var now = start
        while now < end {
            guard piece.withUnsafeBytes(step) else { throw ClientError("errno \(errno)") }
            let then = monotonicNanoseconds
            result.latency.record(then - now)
            now = then
            written += pieceBytes
        }
        result.mebibytesPerSecond = Double(written) / 1_048_576 / (Double(now - start) / 1e9)
        return result
    }

    /// One thread sends to another over TCP, 64 KiB at a time.
    static func loopbackMebibytesPerSecond(seconds: Double) throws(ClientError) -> Double {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(listener, $0, length)
                _ = listen(listener, 1)
                _ = getsockname(listener, $0, &length)
            }
        }
        defer { close(listener) }
        let sender = try Socket(host: "127.0.0.1", port: UInt16(bigEndian: address.sin_port))
        let descriptor = sender.descriptor
        _ = fcntl(descriptor, F_SETFL, 0)
        let isOver = Atomic<Bool>(false)
        return withExtendedLifetime(sender) {
            let receiver = accept(listener, nil, nil)
            let thread = Thread {
                let block = [UInt8](repeating: 7, count: 65_536)
                while !isOver.load(ordering: .relaxed) {
                    _ = block.withUnsafeBytes {
                        send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                    }
                }
                shutdown(descriptor, Int32(SHUT_WR))
            }
            thread.start()
            var room = [UInt8](repeating: 0, count: 1 << 20)
            let start = monotonicNanoseconds
            let end = start + Int64(seconds * 1e9)
            var total = 0
            var elapsed = 0.0
            while true {
                let count = room.withUnsafeMutableBytes {
                    recv(receiver, $0.baseAddress, $0.count, 0)
                }
                guard count > 0 else { break }
                if elapsed == 0 { total += count }
                if elapsed == 0, monotonicNanoseconds >= end {
                    elapsed = Double(monotonicNanoseconds - start) / 1e9
                    isOver.store(true, ordering: .relaxed)
                }
            }
            close(receiver)
            return Double(total) / 1_048_576 / elapsed
        }
    }

    /// Durable writes of one size, in both ways.
    static func durableWrites(
        _ options: Options, _ label: String, bytes: Int, _ report: inout Report
    ) throws(ClientError) {
        let seconds = min(2, options.seconds)
        let raw = try appendToFile(options.folder, pieceBytes: bytes, seconds: seconds)
        report.add("raw write \(label) MiB/s", raw.mebibytesPerSecond, "MiB/s")
        report.add("raw write \(label) p50", raw.latency.milliseconds(0.5), "ms")
        report.add("raw write \(label) p99", raw.latency.milliseconds(0.99), "ms")
        let files = try makeFiles(options.folder, pieceBytes: bytes, seconds: seconds)
        report.add("raw file-each \(label) MiB/s", files.mebibytesPerSecond, "MiB/s")
        report.add("raw file-each \(label) p50", files.latency.milliseconds(0.5), "ms")
    }

    static func run(_ options: Options, _ report: inout Report) throws(ClientError) {
        try durableWrites(options, "4KiB", bytes: 4_096, &report)
        try durableWrites(options, "1MiB", bytes: 1 << 20, &report)
        let copied = try loopbackMebibytesPerSecond(seconds: min(2, options.seconds))
        report.add("raw loopback MiB/s", copied, "MiB/s")
    }
}
