import static java.util.concurrent.TimeUnit.MILLISECONDS;

import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;

/** An ordinary grpc-java server of demo.v1.Echo/Echo with the library's defaults. */
final class EchoServer {
  /** Messages stay as they are on the wire. */
  private static final MethodDescriptor.Marshaller<byte[]> RAW_BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] message) {
          return new ByteArrayInputStream(message);
        }

        @Override
        public byte[] parse(InputStream message) {
          try {
            return message.readAllBytes();
          } catch (IOException failure) {
            throw new UncheckedIOException(failure);
          }
        }
      };

  private final ScheduledExecutorService clock =
      Executors.newSingleThreadScheduledExecutor(
          work -> {
            Thread thread = new Thread(work, "delay");
            thread.setDaemon(true);
            return thread;
          });
  private final long delay;

  private EchoServer(long delay) {
    this.delay = delay;
  }

  private void echo(byte[] message, StreamObserver<byte[]> answer) {
    clock.schedule(
        () -> {
          answer.onNext(message);
          answer.onCompleted();
        },
        delay,
        MILLISECONDS);
  }

  private ServerServiceDefinition service() {
    MethodDescriptor<byte[], byte[]> method =
        MethodDescriptor.newBuilder(RAW_BYTES, RAW_BYTES)
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName("demo.v1.Echo/Echo")
            .build();
    return ServerServiceDefinition.builder("demo.v1.Echo")
        .addMethod(method, ServerCalls.asyncUnaryCall(this::echo))
        .build();
  }

  public static void main(String[] arguments) throws Exception {
    long age = 0;
    long idle = 0;
    long delay = 0;
    for (int at = 0; at + 1 < arguments.length; at += 2) {
      long value = Long.parseLong(arguments[at + 1]);
      switch (arguments[at]) {
        case "--max-connection-age" -> age = value;
        case "--max-connection-idle" -> idle = value;
        case "--delay" -> delay = value;
        default -> throw new IllegalArgumentException(arguments[at]);
      }
    }

    NettyServerBuilder builder =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .addService(new EchoServer(delay).service());
    if (age > 0) {
      builder.maxConnectionAge(age, MILLISECONDS).maxConnectionAgeGrace(1000, MILLISECONDS);
    }
    if (idle > 0) {
      builder.maxConnectionIdle(idle, MILLISECONDS);
    }
    Server server = builder.build().start();
    Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
    System.out.println("listening 127.0.0.1:" + server.getPort());
    server.awaitTermination();
  }
}
