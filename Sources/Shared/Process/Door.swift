// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import RPC

/// Where calls arrive before there is a service for them: refuses them until then.
package final class Door: CallService {
    package var service: (any CallService)?

    package init() {}

    package func serve(
        _ call: any Call, method: Method, payload: Bytes, deadline: Nanoseconds?
    ) {
        guard let service else { return call.end(.unavailable, Bytes()) }
        service.serve(call, method: method, payload: payload, deadline: deadline)
    }
}
