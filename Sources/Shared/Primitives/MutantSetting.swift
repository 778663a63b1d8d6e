// SPDX-License-Identifier: Apache-2.0

/// A known bug that the simulator may switch on, to show that it would notice.
///
/// There are such bugs only where `MUTANTS` is defined, as it is in debug builds. Elsewhere the
/// setting is always nil and takes no room, and the compiler leaves out what it would change.
@frozen
@propertyWrapper
public struct MutantSetting<Bug: Sendable>: Sendable {
    #if MUTANTS
        public var wrappedValue: Bug?
    #else
        @inlinable public var wrappedValue: Bug? {
            get { nil }
            set { precondition(newValue == nil, "built without mutants") }
        }
    #endif

    @inlinable public init() {}
}
