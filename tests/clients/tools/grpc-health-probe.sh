# shellcheck shell=bash
go_tool github.com/grpc-ecosystem/grpc-health-probe@v0.4.62
for service in '' liveness attnd.v1.AttentionService attnd.v1.ModelService attnd.v1.ServerService; do
  grpc-health-probe -addr "$ADDRESS" -service "$service"
done
refused 'unknown service' -- grpc-health-probe -addr "$ADDRESS" -service attnd.v1.NoSuch
echo "version: v0.4.62"
