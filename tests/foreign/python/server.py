"""An ordinary grpcio server of demo.v1.Echo/Echo with the library's defaults."""

import argparse
import signal
import threading
import time
from concurrent import futures

import grpc


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-connection-age", type=int, metavar="MS")
    parser.add_argument("--max-connection-idle", type=int, metavar="MS")
    parser.add_argument("--delay", type=int, default=0, metavar="MS")
    arguments = parser.parse_args()

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
