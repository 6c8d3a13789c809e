package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Calls demo.v1.Echo at an address: bodies of many sizes, many at once, and a method that is not
// there.
func call(address string) error {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawBytes{})))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, size := range []int{0, 1, 1000, 16384, 60000} {
		if err := echoOnce(ctx, connection, size); err != nil {
			return err
		}
	}
	var wait sync.WaitGroup
	failures := make(chan error, 100)
	for n := range 100 {
		wait.Go(func() {
			if err := echoOnce(ctx, connection, n); err != nil {
				failures <- err
			}
		})
	}
	wait.Wait()
	close(failures)
	for err := range failures {
		return err
	}
	nothing := []byte{}
	err = connection.Invoke(ctx, "/demo.v1.Echo/Sing", &nothing, &nothing)
	if status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("a method that is not there: %w", err)
	}
	return nil
}

// One call whose body has this size.
func echoOnce(ctx context.Context, connection *grpc.ClientConn, size int) error {
	request := field1(bytes.Repeat([]byte{7}, size))
	var reply []byte
	if err := connection.Invoke(ctx, "/demo.v1.Echo/Echo", &request, &reply); err != nil {
		return fmt.Errorf("size %d: %w", size, err)
	}
	if !bytes.Equal(request, reply) {
		return fmt.Errorf("size %d: not what was sent", size)
	}
	return nil
}

// A message whose field 1 is body.
func field1(body []byte) []byte {
	message := []byte{0x0a}
	length := len(body)
	for length >= 0x80 {
		message = append(message, byte(length)|0x80)
		length >>= 7
	}
	return append(append(message, byte(length)), body...)
}
