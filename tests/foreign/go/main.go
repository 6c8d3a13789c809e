// An ordinary grpc-go server of demo.v1.Echo's Echo and Converse with the library's defaults, and a client.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
)

// rawBytes leaves messages as they are on the wire.
type rawBytes struct{}

func (rawBytes) Name() string { return "proto" }

func (rawBytes) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (rawBytes) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

func main() {
	age := flag.Int("max-connection-age", 0, "milliseconds, 0 for ever")
	idle := flag.Int("max-connection-idle", 0, "milliseconds, 0 for ever")
	delay := flag.Int("delay", 0, "milliseconds before each answer")
	address := flag.String("call", "", "call the Echo at this address instead of serving one")
	flag.Parse()
	if *address != "" {
		if err := call(*address); err != nil {
			log.Fatal(err)
		}
		return
	}

	options := []grpc.ServerOption{grpc.ForceServerCodecV2(rawBytes{})}
	if *age > 0 || *idle > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      time.Duration(*age) * time.Millisecond,
			MaxConnectionAgeGrace: time.Second,
			MaxConnectionIdle:     time.Duration(*idle) * time.Millisecond,
		}))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "demo.v1.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: echo(time.Duration(*delay) * time.Millisecond)}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Converse", Handler: converse, ServerStreams: true, ClientStreams: true},
		},
	}, nil)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Stop()
	}()
	fmt.Printf("listening %s\n", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

// Sends each message back as it comes.
func converse(_ any, stream grpc.ServerStream) error {
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

func echo(delay time.Duration) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var message []byte
		if err := decode(&message); err != nil {
			return nil, err
		}
		select {
		case <-time.After(delay):
			return &message, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
