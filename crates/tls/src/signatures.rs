/// The half of a verifier that is the same in all of ours: whoever shows a certificate has to sign
/// with its key. Stands within an `impl` of rustls' `ServerCertVerifier` or `ClientCertVerifier`,
/// which is left with whose certificate may be shown, and names the algorithms that are taken.
///
/// A macro, since rustls asks for the same three functions in both traits. Which version of TLS is
/// spoken is a matter of the configuration, not of the verifier.
#[macro_export]
macro_rules! verify_signatures {
    (|$verifier:ident| $algorithms:expr) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let $verifier = self;
            ::rustls::crypto::verify_tls12_signature(message, certificate, signature, &$algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let $verifier = self;
            ::rustls::crypto::verify_tls13_signature(message, certificate, signature, &$algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            let $verifier = self;
            $algorithms.supported_schemes()
        }
    };
}
