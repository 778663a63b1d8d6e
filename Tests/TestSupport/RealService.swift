// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Testing

/// The services that tests run on, beside themselves.
package enum RealService: String {
    case postgres, s3, cell

    /// Says that the running test uses this service: a line with its name, in a file named like
    /// the service in the folder that `MILLRACE_TEST_USES` names, if any. Whoever knows the service
    /// from the environment calls this, so that no test can use it and be silent.
    package func note() {
        guard let folder = getenv("MILLRACE_TEST_USES") else { return }
        let file = fopen("\(String(cString: folder))/\(rawValue)", "a")
        guard let file else { return perror("MILLRACE_TEST_USES") }
        fputs("\(Test.current.map { "\($0.id)" } ?? "outside of any test")\n", file)
        fclose(file)
    }
}
