// SPDX-License-Identifier: Apache-2.0

// Everything that an executable needs to put a process together.

@_exported import Compression
@_exported import Configuration
@_exported import Crypto
@_exported import HTTP
@_exported import Log
@_exported import Metadata
@_exported import ObjectStorage
@_exported import Observability
@_exported import Postgres
@_exported import Primitives
@_exported import Process
@_exported import RPC
@_exported import Records
@_exported import S3
@_exported import Transport
