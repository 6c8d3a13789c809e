"""An ordinary grpcio server of demo.v1.Echo/Echo with the library's defaults, and a client."""

import argparse
import signal
import threading
import time
from concurrent import futures

import grpc


def call(address):
    """Bodies of many sizes, many at once, and a method that is not there."""
    with grpc.insecure_channel(address) as channel:
        echo = channel.unary_unary("/demo.v1.Echo/Echo")
        for size in (0, 1, 1000, 16384, 60000):
            assert echo(field1(size), timeout=20) == field1(size), size
        calls = [(size, echo.future(field1(size), timeout=20)) for size in range(100)]
        for size, reply in calls:
            assert reply.result() == field1(size), size
        try:
            channel.unary_unary("/demo.v1.Echo/Sing")(b"", timeout=20)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        else:
            raise AssertionError("a method that is not there")


def field1(size):
    """A message whose field 1 has this size."""
    length, prefix = size, b"\x0a"
    while length >= 0x80:
        prefix += bytes([length & 0x7F | 0x80])
        length >>= 7
    return prefix + bytes([length]) + b"\x07" * size


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-connection-age", type=int, metavar="MS")
    parser.add_argument("--max-connection-idle", type=int, metavar="MS")
    parser.add_argument("--delay", type=int, default=0, metavar="MS")
    parser.add_argument("--call", metavar="ADDRESS", help="call the Echo there instead of serving one")
    arguments = parser.parse_args()
    if arguments.call:
        call(arguments.call)
        return

    options = []
    if arguments.max_connection_age:
        options.append(("grpc.max_connection_age_ms", arguments.max_connection_age))
        options.append(("grpc.max_connection_age_grace_ms", 1000))
    if arguments.max_connection_idle:
        options.append(("grpc.max_connection_idle_ms", arguments.max_connection_idle))

    def echo(message, _context):
        time.sleep(arguments.delay / 1000)
        return message

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=options)
    # Without serializers a handler gets and gives the message's bytes.
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.v1.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server.start()
    print(f"listening 127.0.0.1:{port}")
    stop.wait()
    server.stop(grace=None).wait()


main()
