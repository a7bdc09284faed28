// Computes attention: attend ADDRESS MODEL INPUT OUTPUT (see the README one folder up).
package main

import (
	pb "attend/generated/attnd/v1"
	"context"
	"fmt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"os"
	"time"
)

func main() {
	const heads, length, dim, size = 8, 2048, 64, 8 * 2048 * 64 * 4
	tensors := must(os.ReadFile(os.Args[3]))
	conn := must(grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))) // the reply is 89 bytes over the default, 4 MiB
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	reply := must(pb.NewAttentionServiceClient(conn).ComputeAttention(ctx, &pb.ComputeAttentionRequest{
		Model: os.Args[2], Batch: 1, Heads: heads, QueryLength: length, KeyLength: length, HeadDim: dim,
		Dtype: pb.Dtype_DTYPE_FP32, Q: tensors[:size], K: tensors[size : 2*size], V: tensors[2*size : 3*size]}))
	must(0, os.WriteFile(os.Args[4], reply.Output, 0o644))
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s\n", status.Code(err), status.Convert(err).Message())
		for _, detail := range status.Convert(err).Details() {
			if d, ok := detail.(*pb.ErrorDetail); ok {
				fmt.Fprintf(os.Stderr, "  field %s: expected %s, got %s\n", d.Field, d.Expected, d.Got)
			}
		}
		os.Exit(1)
	}
	return value
}
