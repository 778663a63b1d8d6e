# SPDX-License-Identifier: Apache-2.0
"""B: the configuration of basins."""

from . import check, same
from .cell import error

PATH = "/v1/basins"
DAY = 86_400


async def config_of(cell, name):
    reply = await cell.call("GET", PATH + "/" + name)
    same(reply.status, 200)
    return reply.json()


async def patch(cell, name, data):
    reply = await cell.call("PATCH", PATH + "/" + name, data=data)
    same(reply.status, 200, data)
    same(reply.json(), await config_of(cell, name), "PATCH and GET")
    return reply.json()


def leaves(config):
    """The default stream configuration, as far as it is set."""
    return {k: v for k, v in (config["default_stream_config"] or {}).items() if v is not None}


@check(35)
async def full_configuration_is_echoed(cell):
    wish = {
        "create_stream_on_append": True, "create_stream_on_read": True,
        "default_stream_config": {
            "storage_class": "standard", "retention_policy": {"age": DAY},
            "timestamping": {"mode": "arrival", "uncapped": True},
            "delete_on_empty": {"min_age_secs": 3600}}}
    found = await config_of(cell, await cell.make_basin(wish))
    same({k: found[k] for k in wish}, wish)


LEAVES = (
    {"storage_class": "standard"}, {"storage_class": "express"},
    {"retention_policy": {"age": DAY}}, {"retention_policy": {"infinite": {}}},
    {"retention_policy": {"age": 2**64 - 1}},
    {"delete_on_empty": {"min_age_secs": 3600}}, {"delete_on_empty": {"min_age_secs": 0}})
MODES = ("client-prefer", "client-require", "arrival")


@check(36)
async def each_default_is_echoed(cell):
    for wish in LEAVES:
        name = await cell.make_basin({"default_stream_config": wish})
        found = leaves(await config_of(cell, name))
        same({k: found.get(k) for k in wish}, wish, "create")
        stream = await cell.make_stream(basin=name)
        found = (await stream.call("GET")).json()
        same({k: found.get(k) for k in wish}, wish, "inherited")
    for mode in MODES:
        for uncapped in (True, False):
            wish = {"mode": mode, "uncapped": uncapped}
            name = await cell.make_basin({"default_stream_config": {"timestamping": wish}})
            same(leaves(await config_of(cell, name)).get("timestamping"), wish, "38")


@check(40)
async def explicit_defaults_are_echoed(cell):
    wish = {"storage_class": "express", "timestamping": {"mode": "client-prefer",
                                                         "uncapped": False},
            "delete_on_empty": {"min_age_secs": 0}}
    found = leaves(await config_of(cell, await cell.make_basin({"default_stream_config": wish})))
    same({k: found.get(k) for k in wish}, wish)


@check(47)
async def values_that_make_no_sense(cell):
    name = await cell.make_basin()
    for config, status, code in (
            ({"retention_policy": {"age": 0}}, 422, "invalid"),
            ({"retention_policy": {"age": -1}}, 400, "bad_json"),
            ({"retention_policy": {"age": 1.5}}, 400, "bad_json"),
            ({"retention_policy": {"age": 2**64}}, 400, "bad_json"),
            ({"retention_policy": "infinite"}, 400, "bad_json"),
            ({"retention_policy": {}}, 400, "bad_json"),
            ({"retention_policy": {"age": 1, "infinite": {}}}, 400, "bad_json"),
            ({"timestamping": {"mode": "sometimes"}}, 400, "bad_json"),
            ({"timestamping": {"uncapped": 1}}, 400, "bad_json"),
            ({"timestamping": "arrival"}, 400, "bad_json"),
            ({"delete_on_empty": {"min_age_secs": -1}}, 400, "bad_json"),
            ({"delete_on_empty": 5}, 400, "bad_json"),
            ({"storage_class": "gold"}, 422, "invalid"),
            ({"storage_class": 1}, 400, "bad_json")):
        data = {"basin": cell.fresh("conf"), "config": {"default_stream_config": config}}
        error(await cell.call("POST", PATH, data=data), status, code, config)
        reply = await cell.call("PATCH", PATH + "/" + name, data={"default_stream_config": config})
        error(reply, status, code, config)
        reply = await cell.call("PUT", PATH + "/" + name,
                                data={"config": {"default_stream_config": config}})
        error(reply, status, code, config)
        data = {"stream": cell.fresh(), "config": config}
        error(await cell.call("POST", "/v1/streams", data=data, basin=name), status, code, config)
    for data in ({"stream_cipher": "rot13"}, {"create_stream_on_append": 1}):
        error(await cell.call("PATCH", PATH + "/" + name, data=data), 400, "bad_json", data)


@check(55)
async def flags_on_and_off(cell):
    name = await cell.make_basin()
    for flag in ("create_stream_on_append", "create_stream_on_read"):
        for value in (True, False):
            same((await patch(cell, name, {flag: value}))[flag], value)


@check(56)
async def each_leaf_is_reconfigured_alone(cell):
    start = {"storage_class": "standard", "retention_policy": {"age": DAY},
             "timestamping": {"mode": "arrival", "uncapped": True},
             "delete_on_empty": {"min_age_secs": 60}}
    name = await cell.make_basin({"default_stream_config": start, "create_stream_on_read": True})
    expected = dict(start)
    for change in ({"storage_class": "express"}, {"retention_policy": {"infinite": {}}},
                   {"timestamping": {"mode": "client-require"}},
                   {"timestamping": {"uncapped": False}},
                   {"delete_on_empty": {"min_age_secs": 0}}):
        found = await patch(cell, name, {"default_stream_config": change})
        for key, value in change.items():
            expected[key] = (expected[key] | value) if key == "timestamping" else value
        same(leaves(found), expected, change)
        same((found["create_stream_on_read"], found["create_stream_on_append"]), (True, False))
    same(leaves(await patch(cell, name, {})), expected, "58")
    same(leaves(await patch(cell, name, {"default_stream_config": {}})), expected, "58")
    same(leaves(await patch(cell, name, {"create_stream_on_append": True})), expected, "59")


@check(60)
async def null_clears(cell):
    start = {"storage_class": "standard", "retention_policy": {"age": DAY},
             "timestamping": {"mode": "arrival", "uncapped": True},
             "delete_on_empty": {"min_age_secs": 60}}

    async def resolved(change):
        """What a new stream gets after the change."""
        name = await cell.make_basin({"default_stream_config": start})
        await patch(cell, name, {"default_stream_config": change})
        stream = await cell.make_stream(basin=name)
        found = (await stream.call("GET")).json()
        return {k: found[k] for k in start}
    system = {"storage_class": "express", "retention_policy": {"age": 604_800},
              "timestamping": {"mode": "client-prefer", "uncapped": False},
              "delete_on_empty": {"min_age_secs": 0}}
    same(await resolved(None), system)
    for key in start:
        same(await resolved({key: None}), start | {key: system[key]}, key)
    same((await resolved({"timestamping": {"mode": None}}))["timestamping"],
         {"mode": "client-prefer", "uncapped": True})
    same((await resolved({"timestamping": {"uncapped": None}}))["timestamping"],
         {"mode": "arrival", "uncapped": False})
    name = await cell.make_basin({"default_stream_config": start})
    same((await patch(cell, name, {"default_stream_config": None}))["default_stream_config"], None)
    for flag in ("create_stream_on_append", "create_stream_on_read"):
        await patch(cell, name, {flag: True})
        same((await patch(cell, name, {flag: None}))[flag], True, "no change")
