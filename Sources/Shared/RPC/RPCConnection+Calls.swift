// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// What calls ask of their connection.
extension RPCConnection: CallOwner {
    func callHeld(_ call: ConnectionCall, _ cost: Int) {
        heldBytes += cost
        pump(call)
        while heldBytes > settings.heldBytesMax, endGreatestHolder() {}
    }

    /// Ends the call that holds the most bytes, of several the latest. Whatever was sent or taken
    /// in of it has its effect all the same.
    private func endGreatestHolder() -> Bool {
        let greatest = calls.all.max { ($0.heldCost, $0.id) < ($1.heldCost, $1.id) }
        guard let call = greatest, call.heldCost > 0 else { return false }
        let isUntouched = call.isCaller && !call.isOpened
        if call.isCaller {
            sendCancel(call, .cancelled)
        } else {
            refuse(call.id, .indefinite)
        }
        forget(call)
        call.finishSoon(isUntouched ? .overloaded : .indefinite, on: loop)
        return true
    }

    func callSends(
        _ call: ConnectionCall, _ count: Int, body: Bytes,
        _ write: (UnsafeMutableRawPointer) -> Void
    ) -> Bool {
        guard credit > 0, call.credit > 0, !call.isBlocked, !isClosed else { return false }
        credit -= count + body.count
        call.credit -= count + body.count
        writer.write(.message, call: call.id, count, body: body, write)
        planFlush()
        return true
    }

    func callConsumed(_ call: ConnectionCall, _ count: Int) {
        let count = min(count, call.received - call.grantDue)
        call.grantDue += count
        dealtWith(count)
        guard call.grantDue >= settings.callWindowBytes / 8, !call.isGrantListed else { return }
        call.isGrantListed = true
        grants.append(call)
        planFlush()
    }

    func callCancelled(_ call: ConnectionCall, _ status: Status) {
        sendCancel(call, status)
        over(call, status == .cancelled ? nil : status)
    }

    private func sendCancel(_ call: ConnectionCall, _ status: Status) {
        // An open that was not sent yet never will be.
        guard call.isOpened else { return }
        write(Frame(.cancel, status: status.rawValue, call: call.id))
    }
}
