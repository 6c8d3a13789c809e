package main

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// The types of resources that a proxy asks for.
const (
	clusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointType  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	listenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	extensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// subscriber is a proxy as far as its control plane sees: it asks for resources and takes all of them,
// those too that a stock Envoy does not know. What they say is read from the control plane's own dump.
type subscriber struct {
	node   []byte
	stream grpc.ClientStream
}

// subscribe connects as the proxy. (envoy.service.discovery.v3.AggregatedDiscoveryService,
// StreamAggregatedResources.)
func subscribe(ctx context.Context, discovery string, p proxy) (*subscriber, error) {
	connection, err := grpc.NewClient(discovery,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources")
	if err != nil {
		return nil, err
	}
	node, err := p.encoded()
	if err != nil {
		return nil, err
	}
	return &subscriber{node: node, stream: stream}, nil
}

// ask asks for all resources of a type, or those of these names, and takes the answer.
//
// DiscoveryRequest: 1 version_info, 2 node, 3 resource_names, 4 type_url, 5 response_nonce.
// DiscoveryResponse: 1 version_info, 2 resources, 4 type_url, 5 nonce.
func (s *subscriber) ask(kind string, names []string) error {
	request := func(version, nonce string) []byte {
		var message []byte
		message = appendText(message, 1, version)
		message = protowire.AppendTag(message, 2, protowire.BytesType)
		message = protowire.AppendBytes(message, s.node)
		for _, name := range names {
			message = appendText(message, 3, name)
		}
		message = appendText(message, 4, kind)
		return appendText(message, 5, nonce)
	}
	if err := s.stream.SendMsg(request("", "")); err != nil {
		return err
	}
	for {
		var response []byte
		if err := s.stream.RecvMsg(&response); err != nil {
			return err
		}
		fields, err := texts(response)
		if err != nil {
			return err
		}
		// A push of a type that was asked for before may come in between.
		if fields[4] == kind {
			return s.stream.SendMsg(request(fields[1], fields[5]))
		}
	}
}

// encoded is the proxy's envoy.config.core.v3.Node: 1 id, 2 cluster, 3 metadata.
func (p proxy) encoded() ([]byte, error) {
	text, err := json.Marshal(p.metadata())
	if err != nil {
		return nil, err
	}
	metadata := &structpb.Struct{}
	if err := metadata.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	content, err := proto.Marshal(metadata)
	if err != nil {
		return nil, err
	}
	node := appendText(nil, 1, p.node())
	node = appendText(node, 2, p.cluster())
	node = protowire.AppendTag(node, 3, protowire.BytesType)
	return protowire.AppendBytes(node, content), nil
}

func appendText(message []byte, field protowire.Number, text string) []byte {
	if text == "" {
		return message
	}
	return protowire.AppendString(protowire.AppendTag(message, field, protowire.BytesType), text)
}

// texts are the length-delimited fields of a message by number; of a repeated one, the last.
func texts(message []byte) (map[protowire.Number]string, error) {
	found := map[protowire.Number]string{}
	for len(message) > 0 {
		number, kind, length := protowire.ConsumeTag(message)
		if length < 0 {
			return nil, protowire.ParseError(length)
		}
		message = message[length:]
		if kind == protowire.BytesType {
			value, length := protowire.ConsumeBytes(message)
			if length < 0 {
				return nil, protowire.ParseError(length)
			}
			found[number], message = string(value), message[length:]
			continue
		}
		length = protowire.ConsumeFieldValue(number, kind, message)
		if length < 0 {
			return nil, protowire.ParseError(length)
		}
		message = message[length:]
	}
	return found, nil
}

// bytesCodec leaves messages as they are on the wire.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(message any) ([]byte, error) {
	content, ok := message.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is no message", message)
	}
	return content, nil
}

func (bytesCodec) Unmarshal(content []byte, message any) error {
	into, ok := message.(*[]byte)
	if !ok {
		return fmt.Errorf("%T is no message", message)
	}
	*into = append([]byte(nil), content...)
	return nil
}
