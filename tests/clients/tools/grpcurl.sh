# shellcheck shell=bash
go_tool github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
example grpcurl run.sh
grpcurl -plaintext "$ADDRESS" list | tee "$SCRATCH/services"
grep -qx attnd.v1.AttentionService "$SCRATCH/services"
grpcurl -plaintext "$ADDRESS" grpc.health.v1.Health/Check | grep SERVING
echo "version: v1.9.4"
