"""Who is known to the fake clouds. Every secret here is made up and opens nothing."""

AWS_REGION = "us-east-1"
AWS_SERVICE = "bedrock"

# Access key id -> secret: one is stored in the gateway, the other held by an application.
AWS_STORED_KEY_ID = "AKIDSTOREDINGATEWAY"
AWS_CLIENT_KEY_ID = "AKIDHELDBYTHECLIENT"
AWS_SECRETS = {
    AWS_STORED_KEY_ID: "stored-secret-of-the-fake-cloud",
    AWS_CLIENT_KEY_ID: "client-secret-of-the-fake-cloud",
}

AZURE_RESOURCE = "sea-resource"

GOOGLE_PROJECT = "sea-project"
GOOGLE_LOCATION = "us-central1"
GOOGLE_ACCOUNT = f"tollgate-test@{GOOGLE_PROJECT}.iam.gserviceaccount.com"
GOOGLE_KEY_ID = "0123456789abcdef"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
