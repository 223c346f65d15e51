#!/bin/sh
# SeaweedFS as an S3 with three keys: DVC's opens the bucket dvc, MLflow's the bucket mlflow, and the third makes the
# two. SeaweedFS's other servers ask for no password; they listen inside this container alone, but for one that its S3
# opens beside itself (gRPC, port 18333), which the compose file's network `storage` can reach.
set -eu
: "${S3_DVC_KEY:?}" "${S3_DVC_SECRET:?}" "${S3_MLFLOW_KEY:?}" "${S3_MLFLOW_SECRET:?}" "${S3_ADMIN_SECRET:?}"
umask 077
cat > /tmp/s3.json <<JSON
{
  "identities": [
    {
      "name": "dvc",
      "credentials": [{"accessKey": "$S3_DVC_KEY", "secretKey": "$S3_DVC_SECRET"}],
      "actions": ["Read:dvc", "Write:dvc", "List:dvc", "Tagging:dvc"]
    },
    {
      "name": "mlflow",
      "credentials": [{"accessKey": "$S3_MLFLOW_KEY", "secretKey": "$S3_MLFLOW_SECRET"}],
      "actions": ["Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"]
    },
    {
      "name": "admin",
      "credentials": [{"accessKey": "admin", "secretKey": "$S3_ADMIN_SECRET"}],
      "actions": ["Admin:dvc", "Admin:mlflow"]
    }
  ]
}
JSON
exec weed -logtostderr=true server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.max=0 \
  -master.volumeSizeLimitMB=1024 -master.telemetry=false -filer -s3 -s3.ip.bind=0.0.0.0 -s3.port=8333 \
  -s3.port.iceberg=0 -s3.port.lance=0 -s3.iam=false -s3.config=/tmp/s3.json
