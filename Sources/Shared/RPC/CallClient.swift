// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Makes calls to other processes, by address, over one connection each. Confined to one loop.
package protocol CallClient: AnyObject {
    /// Opens a call at `address`; connects first where need be. With a `deadline` (nanoseconds from
    /// now) the call ends with `.deadlineExceeded` at the latest then. The caller sets the call's
    /// `on…` closures before it returns to the loop: none is called sooner.
    func call(
        _ address: String, _ method: Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call
}

extension CallClient {
    /// A call of one request and one reply.
    package func unary(
        _ address: String, _ method: Method, _ payload: Bytes, deadline: Nanoseconds
    ) async -> (Status, Bytes) {
        await withUnsafeContinuation { (waiter: UnsafeContinuation<(Status, Bytes), Never>) in
            let call = call(address, method, payload, deadline: deadline)
            call.onEnd = { waiter.resume(returning: ($0, $1)) }
        }
    }
}
