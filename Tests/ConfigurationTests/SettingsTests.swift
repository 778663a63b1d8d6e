// SPDX-License-Identifier: Apache-2.0

import Configuration
import Foundation
import Glibc
import Primitives
import Testing

private func parse(
    _ table: SettingTable, _ arguments: [String], _ environment: [String: String] = [:]
) throws -> Settings {
    guard
        case .run(let settings) = try Settings.parse(
            table, arguments: arguments, environment: environment)
    else { throw UsageError("asked for help") }
    return settings
}

@Suite struct SettingsTests {
    let database = ["MILLRACE_METADATA": "host=/run/pg"]

    @Test func defaultsApplyWhereNothingIsSet() throws {
        let settings = try parse(.frontend, [], database)
        #expect(settings[.listen] == "127.0.0.1:8080")
        #expect(settings[.inFlightBytes] == 128 << 20)
        #expect(settings[.responseBytes] == 256 << 20)
        #expect(settings[.superviseByStdin] == false)
        #expect(settings[.metadata] == "host=/run/pg")
    }

    @Test func optionsWinOverTheEnvironment() throws {
        let environment = database.merging(["MILLRACE_LEASE_TTL": "9s"]) { $1 }
        #expect(try parse(.cop, ["serve"], environment)[.leaseTTL] == .seconds(9))
        let settings = try parse(.cop, ["serve", "--lease-ttl", "250ms"], environment)
        #expect(settings[.leaseTTL] == .milliseconds(250))
        #expect(settings.arguments == ["serve"])
        #expect(try parse(.cop, ["--channels=7"], environment)[.channels] == 7)
        #expect(try parse(.frontend, ["--supervised"], database)[.superviseByStdin])
        #expect(try parse(.frontend, ["--supervised=no"], database)[.superviseByStdin] == false)
        #expect(
            try parse(.cop, ["inspect", "--", "--odd"], database).arguments == ["inspect", "--odd"])
    }

    @Test(arguments: [
        (["--nonsense"], "unknown option --nonsense"),
        (["--listen", "8080"], "--listen: \"8080\" is not of the form host:port"),
        (["--listen"], "--listen needs a value"),
        (["--in-flight-bytes=1"], "--in-flight-bytes: \"1\""),
        (["--drain-timeout=20"], "--drain-timeout: \"20\""),
        (["--log-level=loud"], "--log-level: \"loud\""),
        (["--supervised=perhaps"], "--supervised: \"perhaps\""),
    ])
    func nonsenseIsRefusedWithItsSource(_ arguments: [String], _ message: String) {
        let error = #expect(throws: UsageError.self) { try parse(.frontend, arguments, database) }
        #expect(error?.description.hasPrefix(message) == true, "\(String(describing: error))")
    }

    @Test func peersAreReachedByPortsAndSockets() throws {
        let longest = "unix:/" + String(repeating: "a", count: 106)
        for text in ["127.0.0.1:0", "[::1]:7401", "unix:7401", "unix:/a b:c", longest] {
            #expect(try parse(.channel, ["--rpc-listen", text], database)[.rpcListen] == text)
            #expect(try parse(.cachey, ["--rpc-address", text], database)[.rpcAddress] == text)
        }
        for text in ["", "7401", "unix:", "unix:relative", "/run/socket", longest + "a"] {
            let error = #expect(throws: UsageError.self) {
                try parse(.channel, ["--rpc-listen", text], database)
            }
            #expect(error?.description.contains("of at most 107 bytes") == true)
        }
        #expect(SocketPath.bytesMax == MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1)
    }

    @Test func theVariableIsNamedWhereItIsWrong() {
        let environment = database.merging(["MILLRACE_LISTEN": "nowhere"]) { $1 }
        let error = #expect(throws: UsageError.self) { try parse(.frontend, [], environment) }
        #expect(error?.description.hasPrefix("MILLRACE_LISTEN:") == true)
    }

    @Test func whatMustBeSetIsAskedFor() {
        let error = #expect(throws: UsageError.self) { try parse(.channel, []) }
        #expect(error?.description.contains("MILLRACE_METADATA must be set") == true)
    }

    @Test func helpListsEverySettingAndCommand() throws {
        for table in SettingTable.all {
            guard
                case .help(let text) = try Settings.parse(
                    table, arguments: ["--help"], environment: [:])
            else { throw UsageError("no help") }
            for setting in table.settings {
                #expect(text.contains(setting.option) && text.contains(setting.variable))
            }
            for command in table.commands { #expect(text.contains(command.usage)) }
        }
    }

    @Test func quantitiesReadTheirUnits() {
        #expect(Quantity.bytes("8MiB") == 8 << 20)
        #expect(Quantity.bytes("8mb") == 8 << 20)
        #expect(Quantity.bytes("1000") == 1_000)
        #expect(Quantity.bytes("9999999999TiB") == nil)
        #expect(Quantity.bytes("8 MiB") == nil)
        #expect(Quantity.bytes("-1") == nil)
        #expect(Quantity.duration("1m30s") == .seconds(90))
        #expect(Quantity.duration("250ms") == .milliseconds(250))
        #expect(Quantity.duration("0") == 0)
        #expect(Quantity.duration("5") == nil)
        #expect(Quantity.duration("9999999999d") == nil)
        #expect(Quantity.duration("") == nil)
    }

    @Test func thePageOfSettingsIsUpToDate() throws {
        let page = URL(filePath: #filePath).appending(path: "../../../docs/configuration.md")
            .standardized
        if ProcessInfo.processInfo.environment["MILLRACE_WRITE_DOCS"] != nil {
            try SettingTable.document.write(to: page, atomically: true, encoding: .utf8)
        }
        let stored = try String(contentsOf: page, encoding: .utf8)
        #expect(stored == SettingTable.document, "MILLRACE_WRITE_DOCS=1 rewrites it")
    }
}
